"""What one rank holds of the weights, against vLLM's own code."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from subcortex.errors import InvalidRequest
from subcortex.models.shape import FullAttention, Layer, ModelShape, Part, Split, Tensor
from subcortex.vram.setup import VllmSetup
from subcortex.vram.vllm.weights import padded_vocabulary, rank_bytes, stages
from tests.vram.kv_cases import models, oracle, worlds
from tests.vram.weight_cases import held_of

#: Models whose every tensor is a plain one; quantised and recurrent ones are for the readers' own tests.
PLAIN = {name: shape for name in models() if name != "mamba-codestral-7b" and (shape := held_of(name))}
#: Their first layers are unlike the rest, so spreading bytes evenly over layers does not tell stages.
_UNEVEN = frozenset({"deepseek-v2-lite", "deepseek-v3"})


def layered(*tensors: Tensor, layers: int = 4, tied: bool = False, architecture: str = "any") -> ModelShape:
    attention = FullAttention(8, 2, 64, 64)
    return ModelShape(
        "m", architecture, "written", 64, 100, (Layer((attention,)),) * layers, tensors, tied=tied
    )


def test_most_models_are_plain() -> None:
    assert len(PLAIN) == 45


@pytest.mark.parametrize("name", PLAIN)
def test_ranks_hold_what_they_hold_in_vllms_own_code(name: str) -> None:
    found = {
        world: rank_bytes(PLAIN[name], VllmSetup(int(world[2:].split("pp")[0]))) for world in worlds(name)
    }

    assert found == pytest.approx(
        {world: said["stages"][0]["parameter_bytes"] for world, said in worlds(name).items()}, rel=1e-12
    )


@pytest.mark.parametrize(
    ("variant", "name"),
    [
        (variant, name)
        for variant in ("pipeline", "pipeline_4")
        for name in oracle("variants-0.26.0")["variants"][variant]["models"]
        if name in PLAIN.keys() - _UNEVEN
    ],
)
def test_stages_hold_what_they_hold_in_vllms_own_code(variant: str, name: str) -> None:
    for world, said in worlds(name, oracle("variants-0.26.0")["variants"][variant]).items():
        tp, pp = map(int, world[2:].split("pp"))
        found = [rank_bytes(PLAIN[name], VllmSetup(tp, pp), stage=stage) for stage in range(pp)]

        assert found == pytest.approx([stage["parameter_bytes"] for stage in said["stages"]], rel=1e-12)


@pytest.mark.parametrize(
    ("layers", "pp", "counts"),
    [
        (32, 1, [32]),
        (32, 3, [11, 11, 10]),
        (61, 4, [15, 15, 16, 15]),
        (94, 4, [23, 24, 24, 23]),
        (27, 6, [4, 4, 5, 5, 5, 4]),
        (5, 5, [1] * 5),
    ],
)
def test_stages_are_those_of_vllm(layers: int, pp: int, counts: list[int]) -> None:
    assert [len(stage) for stage in stages(layers, pp)] == counts


@given(st.integers(1, 200), st.data())
def test_stages_have_every_layer_once_and_differ_by_one(layers: int, data: st.DataObject) -> None:
    found = stages(layers, data.draw(st.integers(1, layers)))

    assert [layer for stage in found for layer in stage] == list(range(layers))
    assert max(map(len, found)) - min(map(len, found)) <= 1
    assert len(found[-1]) == min(map(len, found))


@pytest.mark.parametrize("pp", [0, 5])
def test_more_stages_than_layers_are_refused(pp: int) -> None:
    with pytest.raises(InvalidRequest, match=f"4 layers cannot be divided over {pp}"):
        stages(4, pp)


@pytest.mark.parametrize(("stage", "rank"), [(2, 0), (0, 4), (-1, 0)])
def test_a_rank_that_is_not_there_is_refused(stage: int, rank: int) -> None:
    with pytest.raises(InvalidRequest, match=f"no rank {rank} of stage {stage} in TP 4 x PP 2"):
        rank_bytes(layered(), VllmSetup(4, 2), stage=stage, rank=rank)


def test_a_vocabulary_is_padded_to_64_rows_before_it_is_shared_out() -> None:
    shape = layered(Tensor("embed", 0, 1000.0, Split.VOCABULARY, Part.EMBEDDING, rows=100))

    assert padded_vocabulary(100) == 128
    assert rank_bytes(shape, VllmSetup(2)) == 640


def test_key_value_heads_are_repeated_once_there_are_more_ranks() -> None:
    keys = Tensor("k", 0, 800.0, Split.KV_HEADS, layer=0)

    assert [rank_bytes(layered(keys), VllmSetup(tp)) for tp in (1, 2, 4, 8)] == [800, 400, 400, 400]


def test_a_tensor_of_whole_units_is_rounded_up_to_them() -> None:
    blocks = Tensor("w13", 0, 900.0, Split.SHARDED, layer=0, units=9)

    assert [rank_bytes(layered(blocks), VllmSetup(tp)) for tp in (1, 2, 4)] == [900, 500, 300]


def test_a_states_groups_are_repeated_by_their_own_number() -> None:
    group = Tensor("mixer.bc", 0, 800.0, Split.KV_HEADS, layer=0, heads=1)

    assert rank_bytes(layered(group), VllmSetup(4)) == 800


def test_expert_parallelism_shares_out_whole_experts_the_first_ranks_taking_the_rest() -> None:
    experts = Tensor("w1", 0, 100.0, Split.SHARDED, layer=0, count=10, expert=True)
    router = Tensor("gate", 0, 7.0, Split.WHOLE, layer=0)
    setup = VllmSetup(4)

    assert [rank_bytes(layered(experts, router), setup, rank=rank) for rank in range(4)] == [257] * 4
    whole = replace(setup, expert_parallel=True)
    assert [rank_bytes(layered(experts, router), whole, rank=rank) for rank in range(4)] == [
        307,
        307,
        207,
        207,
    ]


ENDS = (
    Tensor("embed", 0, 1000.0, Split.VOCABULARY, Part.EMBEDDING, rows=64),
    Tensor("position", 0, 50.0, Split.WHOLE, Part.EMBEDDING),
    Tensor("norm", 0, 8.0, Split.WHOLE, Part.FINAL),
)
HEAD = Tensor("head", 0, 2000.0, Split.VOCABULARY, Part.HEAD, rows=64)


@pytest.mark.parametrize(
    ("shape", "held"),
    [
        (layered(*ENDS, HEAD), [1050, 0, 0, 2008]),
        (layered(*ENDS, tied=True), [1050, 0, 0, 1008]),
        (layered(*ENDS, HEAD, architecture="Qwen3MoeForCausalLM"), [3058] * 4),
        (layered(*ENDS, HEAD, architecture="Qwen3NextForCausalLM"), [3050, 3050, 3050, 3058]),
        (layered(*ENDS, tied=True, architecture="Lfm2ForCausalLM"), [1050, 1050, 1050, 1058]),
    ],
)
def test_the_ends_of_a_pipeline_hold_embedding_and_head(shape: ModelShape, held: list[float]) -> None:
    assert [rank_bytes(shape, VllmSetup(1, 4), stage=stage) for stage in range(4)] == held


TENSORS = st.lists(
    st.builds(
        Tensor,
        st.just("t"),
        st.just(0),
        st.integers(1, 1 << 20).map(float),
        st.sampled_from(Split),
        st.sampled_from(Part),
        st.none() | st.integers(0, 3),
        st.integers(1, 1000),
        st.integers(1, 8),
        st.booleans(),
    ),
    max_size=8,
)


@given(TENSORS, st.booleans(), st.booleans())
def test_more_ranks_never_hold_more_each_and_together_hold_everything(
    tensors: list[Tensor], tied: bool, expert_parallel: bool
) -> None:
    shape = layered(*tensors, tied=tied)
    each = [
        [rank_bytes(shape, VllmSetup(tp, expert_parallel=expert_parallel), rank=rank) for rank in range(tp)]
        for tp in (1, 2, 4)
    ]
    staged = sum(rank_bytes(shape, VllmSetup(1, 2), stage=stage) for stage in range(2))

    assert max(each[2]) <= max(each[1]) * (1 + 1e-12)
    assert max(each[1]) <= max(each[0]) * (1 + 1e-12)
    assert all(sum(ranks) >= shape.weights_bytes * (1 - 1e-12) for ranks in each)
    assert staged >= each[0][0] * (1 - 1e-12)
