"""Words for the letter-counting tasks and for filler prose: everyday English, and made-up ones."""

import random

_TEXT = """
able above acorn active actor address adventure after again agent airport album alpine amber
anchor animal answer apple apron archive arrow artist aspen atlas attic autumn avenue awake
baboon badge bakery balcony ballet balloon bamboo banana bandit banner barrel basket battery
beacon beetle begin believe bell belly bench berry better between bicycle biscuit blanket
blossom blueberry bobbin bonfire bookkeeper border bottle bottom bridge bright bubble bucket
buffalo bullet bumblebee butter butterfly button cabbage cabin cactus camera campfire canal
candle canoe canyon carpet carrot castle cathedral cattle ceiling cellar cello cereal chapter
cheese cherry chess chicken chimney chocolate cinnamon circle citrus clever cliff clock clover
cobweb coconut coffee collect college comma committee common compass concert copper coral
corner cottage cotton cradle cricket crimson crystal cuckoo cucumber curtain daffodil dagger
daisy dandelion dawn deeper defend degree delta desert dessert difference dinner distance
doctor dolphin donkey dragon drawer dream drizzle drummer eagle earth easel echo eclipse
effect eleven elephant ember emerald engine envelope evening express fabric falcon family
feather ferry fiddle field finger fisherman flame flannel flower fluffy forest fossil fountain
fox freezer friend fritter funnel galaxy gallery garden garlic ginger giraffe glacier glass
goblet goggles gorilla granite grape grass gravity green grocery guitar gutter hammer hammock
happiness harbor harvest hazel heather hello helmet hillside hobby honey horizon hornet hotel
hummingbird iceberg igloo illness indigo infinity ink insect island ivory jacket jelly jigsaw
journey juggler jungle kayak kennel kettle keyboard kingdom kitchen kitten ladder lagoon lantern
lattice laurel lavender lemon lentil letter lettuce level library lilac linen little lizard
llama lobster lollipop lumber machine magnet mammal mango maple marble market marmalade meadow
measure melody memory middle mill minnow mirror mississippi missile mitten model moment monkey
moon morning mosaic mosquito mountain muffin mushroom narrow needle nettle nickel noodle notebook
number nutmeg oatmeal ocean octopus olive onion opera orange orchard orchestra otter oven oyster
paddle palace pancake panther paper parallel parrot passport pattern pebble pencil penguin pepper
petal pickle pigeon pillow pineapple pirate planet platter pocket pollen poodle popcorn poppy
possess potato pottery prairie pretzel puddle pumpkin puppet puzzle pyramid quarrel quarter queen
question quilt rabbit raccoon radio raspberry rattle raven receipt reef referee ribbon riddle river
robot rocket roof rooster rubber ruffle sadness saffron sailor salmon sandwich satellite saddle
scarecrow school scissors season session settle sheep shell shuttle silver sister skeleton sleep
slipper snail soccer soldier spaghetti sparrow spider spinach spoon spring squirrel station steel
stone storm stranger strawberry street success suffer summer sunflower supper surface swallow
swimmer table tadpole tailor tangerine teapot teddy temple tennis tensor terrace theater thimble
thunder ticket tiger tobacco toffee tomato tomorrow tooth topple tortoise toucan tractor traffic
treasure tree trolley trumpet tulip tunnel turtle twilight umbrella uncle unicorn university valley
vanilla velvet vessel village vinegar violin volcano wagon waffle walnut walrus water waterfall
weather whisper whistle willow window winter wizard wonder woodpecker wool yellow yogurt zebra zipper
the of and to in is you that it he was for on are as with his they at be this have from or one had
by word but not what all were we when your can said there use an each which she do how their if
cat dog sun map pen cup egg hat key owl bee ant ice jam leaf lamp milk moss nest oak pear pond rain
reed rose salt sand seed silk snow soap star tent toad tree vase vine wave wind wolf yarn zoo
"""
WORDS = tuple(_TEXT.split())

_ONSET_TEXT = "b c d f g h j k l m n p r s t v w z bl br ch cl cr dr fl fr gl gr pl pr sh sl sp st tr"
_ONSETS = tuple(_ONSET_TEXT.split())
_VOWELS = ("a", "e", "i", "o", "u", "a", "e", "i", "o", "ee", "oo", "ai", "ea", "ou")
_CODAS = ("", "", "", "n", "r", "l", "s", "t", "m", "ll", "ss", "tt", "ck", "nd", "x", "q", "y")


def made_up(rng: random.Random, letters: int) -> str:
    """A pronounceable word that is probably in no dictionary, of exactly `letters` letters."""
    word = ""
    while len(word) < letters:
        word += rng.choice(_ONSETS) + rng.choice(_VOWELS) + rng.choice(_CODAS)
    return word[:letters]


def word(rng: random.Random, shortest: int, longest: int) -> str:
    """A word of `shortest` to `longest` letters, from the list or made up."""
    if rng.random() < 0.5:
        for _ in range(30):
            choice = rng.choice(WORDS)
            if shortest <= len(choice) <= longest:
                return choice
    return made_up(rng, rng.randint(shortest, longest))
