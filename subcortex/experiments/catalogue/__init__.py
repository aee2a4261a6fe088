"""What the machine can ask of itself: one class a question, in the order of the catalogue."""

from __future__ import annotations

from subcortex.errors import InvalidRequest
from subcortex.experiments.catalogue.collectives.experiment import Collectives
from subcortex.experiments.catalogue.idle_and_swap.experiment import IdleAndSwap
from subcortex.experiments.catalogue.interconnect.experiment import Interconnect
from subcortex.experiments.catalogue.joint_serving.experiment import JointServing
from subcortex.experiments.catalogue.load_time.experiment import LoadTime
from subcortex.experiments.catalogue.machine_speed.experiment import MachineSpeed
from subcortex.experiments.catalogue.peer_trust.experiment import PeerTrust
from subcortex.experiments.catalogue.quantisation_tp.experiment import QuantisationTp
from subcortex.experiments.catalogue.saturation.experiment import Saturation
from subcortex.experiments.catalogue.split_answers.experiment import SplitAnswers
from subcortex.experiments.catalogue.split_modes.experiment import SplitModes
from subcortex.experiments.catalogue.startup.experiment import Startup
from subcortex.experiments.catalogue.tp_overhead.experiment import TpOverhead
from subcortex.experiments.experiment import Experiment

#: All experiments, by their row in the catalogue.
CATALOGUE: tuple[Experiment, ...] = (
    PeerTrust(),
    MachineSpeed(),
    Collectives(),
    Interconnect(),
    TpOverhead(),
    JointServing(),
    IdleAndSwap(),
    QuantisationTp(),
    SplitModes(),
    LoadTime(),
    Saturation(),
    SplitAnswers(),
    Startup(),
)


def find(name: str) -> Experiment:
    """Return the experiment of that name.

    Raises:
        InvalidRequest: There is none.
    """
    for one in CATALOGUE:
        if one.name == name:
            return one
    raise InvalidRequest(
        f"there is no experiment {name!r}",
        hint=f"There are: {', '.join(one.name for one in CATALOGUE)}.",
        param="name",
    )


__all__ = ["CATALOGUE", "find"]
