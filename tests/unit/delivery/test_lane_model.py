"""Lanes in a simulated world: nothing is lost, nothing overtakes, poison ends, innocents do not."""

from __future__ import annotations

import random

import pytest

from tenantry.delivery import lane, suspects
from tests.unit.delivery.world import World

SEEDS = 240
BATCH = 40


@pytest.mark.parametrize("first", range(0, SEEDS, BATCH))
def test_whatever_happens_every_message_is_settled_in_order(
    first: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    for seed in range(first, first + BATCH):
        draw = random.Random(-1 - seed)
        monkeypatch.setattr(lane, "LANE_MAX", draw.choice([4, 16, 512]))
        monkeypatch.setattr(lane, "BACKLOG", draw.choice([1, 4, 128]))
        monkeypatch.setattr(lane, "UNSAVED_MAX", draw.choice([1, 4, 256]))
        monkeypatch.setattr(lane, "SINGLES_MAX", draw.choice([1, 3, 256]))
        monkeypatch.setattr(suspects, "CAREFUL", draw.choice([1, 3, 8]))
        try:
            World(seed).run()
        except Exception as error:
            error.add_note(f"seed {seed}")
            raise
