"""The words that the features count: one table a kind, in one place.

Lower case, whole words. A word belongs to one kind. The kinds are what a person would call them;
their weights stand in ``scoring``.
"""

from __future__ import annotations

from enum import IntEnum


class Kind(IntEnum):
    """What a word says about the work that a prompt asks for."""

    QUESTION = 0
    REASONING = 1
    CONSTRAINT = 2
    STEP = 3
    QUANTITY = 4
    OPERATOR = 5
    PRODUCT = 6
    SYMBOLIC = 7
    UNIT = 8
    DEEP = 9


_WORDS: dict[Kind, str] = {
    Kind.QUESTION: """
        what who whom whose when where which how whats wer wem wann wo welche welcher welches wie quoi
        quel quelle quels qui quand où comment qué quién cuándo dónde cuál cómo chi quando quale что кто
        где когда какой как
        """,
    Kind.REASONING: """
        why explain explains show justify analyze analyse analysis compare compares comparison contrast
        evaluate assess critique argue discuss architecture plan plans strategy investigate infer
        conclude hypothesis hypothesize tradeoff tradeoffs trade-off trade-offs implication implications
        consequences cause causes mechanism reason reasons reasoning implement write review summarize
        summarise synthesize interpret predict recommend propose decide consider formalize generalize
        warum wieso weshalb erkläre erklären begründe vergleiche vergleich analysiere bewerte untersuche
        pourquoi explique expliquer justifie comparer planifie évalue explica justifica compara analiza
        planifica evalúa perché spiega confronta analizza почему объясни сравни проанализируй
        """,
    Kind.DEEP: """
        prove disprove proof proofs derive derivation theorem lemma corollary contradiction induction
        deduce algorithm architect design redesign optimize optimise refactor debug diagnose beweise
        beweisen herleiten entwirf prouve démontre démontrer conçois demuestra demostrar diseña dimostra
        progetta докажи спроектируй
        """,
    Kind.CONSTRAINT: """
        must only without except unless least most exactly cannot never neither nor either both if given
        suppose assume assuming provided subject constraint constraints limit limits maximum minimum
        at-least at-most should false true not ohne nur muss höchstens mindestens genau wenn falls sans
        seulement doit exactement sauf si debe exactamente salvo excepto
        """,
    Kind.STEP: """
        then next afterwards finally step steps stepwise step-by-step firstly secondly thirdly after
        before until while meanwhile followed dann danach schließlich zuerst schritt schritte puis
        ensuite enfin étape étapes luego después finalmente paso pasos
        """,
    Kind.QUANTITY: """
        total altogether remaining remains left more less fewer twice thrice half third quarter double
        triple percent percentage per each every average ratio times-as combined many much rate doppelt
        hälfte prozent jede jeder moitié chaque pourcent cada mitad doble porcentaje
        """,
    Kind.OPERATOR: """
        plus minus add added adding subtract subtracted sum sums difference squared cubed root modulo
        mod remainder range spread apart calculate compute solve plus weniger summe differenz somme
        différence suma diferencia más menos
        """,
    Kind.PRODUCT: """
        multiply multiplied multiplying product times divide divided dividing factorial integral
        derivative matrix determinant eigenvalue eigenvalues mal multipliziere produkt geteilt fois
        multiplie produit multiplica producto dividido
        """,
    Kind.SYMBOLIC: """
        sort sorted arrange order ordered ascending descending alphabetical alphabetically letter
        letters spell spelled backwards reverse reversed anagram palindrome count appear appears occur
        occurs largest smallest biggest larger smaller bigger greater sortiere ordne buchstabe
        buchstaben zähle trie trier lettre lettres ordena letra letras
        """,
    Kind.UNIT: """
        kilobyte kilobytes megabyte megabytes gigabyte gigabytes terabyte terabytes kibibyte kibibytes
        mebibyte mebibytes gibibyte gibibytes tebibyte tebibytes bit bits byte bytes kb mb gb tb kib mib
        gib tib token tokens layer layers head heads kv cache vram weights parameters params fp16 bf16
        fp8 int8 int4 context meter meters metre metres cm km kg grams ms seconds minutes hours days
        weeks dollars cents mph kwh
        """,
}

#: Every counted word and its kind.
KIND_OF: dict[str, Kind] = {word: kind for kind, words in _WORDS.items() for word in words.split()}

#: The same for scripts that put no spaces between words: these are looked for anywhere in the text.
UNSPACED: dict[str, Kind] = {
    **dict.fromkeys(("什么", "谁", "哪", "何", "誰", "どこ", "いつ"), Kind.QUESTION),
    **dict.fromkeys(
        (
            *("为什么", "為什麼", "解释", "解釋", "比较", "比較", "分析", "计划", "計劃", "评估"),
            *("なぜ", "説明", "計画", "推論", "왜", "설명", "비교", "분석"),
        ),
        Kind.REASONING,
    ),
    **dict.fromkeys(("证明", "證明", "証明", "设计", "設計", "推导", "导出", "증명"), Kind.DEEP),
    **dict.fromkeys(("必须", "只能", "至少", "最多", "如果", "假设", "ただし", "もし"), Kind.CONSTRAINT),
    **dict.fromkeys(("然后", "首先", "最后", "步骤", "まず", "次に", "最後に"), Kind.STEP),
    **dict.fromkeys(("加", "减", "和是", "計算", "计算"), Kind.OPERATOR),
    **dict.fromkeys(("乘", "除以", "掛け", "割る"), Kind.PRODUCT),
    **dict.fromkeys(("排序", "字母", "並べ"), Kind.SYMBOLIC),
}

_SMALL_TALK = """
        hi hello hey yo thanks thank you thx ok okay yes no sure please bye goodbye good morning evening
        night great nice cool hallo danke bitte ja nein merci bonjour salut oui non gracias hola sí grazie
        ciao 你好 谢谢 謝謝 您好 こんにちは ありがとう 안녕하세요 감사합니다 привет спасибо
        """
#: Openers and courtesies: a prompt made of nothing else asks for nothing.
SMALL_TALK: frozenset[str] = frozenset(_SMALL_TALK.split())

#: Words that, beside a letter standing alone, ask to count letters.
LETTER_CUES: frozenset[str] = frozenset(
    {"many", "count", "often", "times", "letter", "letters", "spell", "number"}
)
