"""The runtimes that are replayed. A further one is one file in `runtimes` and a line here."""

from __future__ import annotations

from weft.lab.replay.persona import Persona
from weft.lab.replay.runtimes import (
    apptainer,
    crio,
    ecs,
    garden,
    k3s,
    mesos,
    nerdctl,
    nomad,
    opensvc,
    rkt,
)

PERSONAS: dict[str, Persona] = {
    each.name: each
    for each in (
        crio.CRIO,
        crio.OPENSHIFT,
        k3s.K3S,
        nerdctl.NERDCTL,
        nomad.NOMAD,
        apptainer.APPTAINER,
        garden.GARDEN,
        mesos.MESOS,
        ecs.ECS,
        opensvc.OM3,
        opensvc.OPENSVC2,
        rkt.RKT,
        rkt.RKT_OLD,
    )
}
