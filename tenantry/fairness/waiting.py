"""Which tenants' requests wait, by weight."""

from __future__ import annotations

from itertools import islice

_LOOKS = 4


class Waiting:
    """Counts of the requests that wait, by weight and tenant: there are few weights."""

    def __init__(self) -> None:
        self.requests = 0
        self._by_weight: dict[int, dict[str, int]] = {}

    def add(self, tenant: str, weight: int) -> None:
        """One more waits."""
        of_weight = self._by_weight.get(weight)
        if of_weight is None:
            of_weight = self._by_weight[weight] = {}
        count = of_weight.get(tenant, 0)
        of_weight[tenant] = count + 1
        self.requests += 1

    def remove(self, tenant: str, weight: int) -> None:
        """One less waits."""
        of_weight = self._by_weight[weight]
        self.requests -= 1
        if of_weight[tenant] > 1:
            of_weight[tenant] -= 1
            return
        del of_weight[tenant]
        if not of_weight:
            del self._by_weight[weight]

    def of_weight(self, weight: int) -> int:
        """How many tenants of this weight wait."""
        return len(self._by_weight.get(weight, ()))

    def candidates(self, below: int | None = None) -> list[str]:
        """A few tenants of each weight, the lowest first, of which the most requests wait.

        Others come next time, so that with many tenants each has its turn.
        """
        found = []
        for weight in sorted(self._by_weight):
            if below is not None and weight >= below:
                break
            of_weight = self._by_weight[weight]
            few = list(islice(of_weight, _LOOKS))
            found += sorted(few, key=of_weight.__getitem__, reverse=True)
            for name in few:
                of_weight[name] = of_weight.pop(name)
        return found
