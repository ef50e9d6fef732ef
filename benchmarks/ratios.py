"""How times of rounds that took turns are told."""

import statistics


def spread(times: list[float], unit: float = 1.0) -> dict[str, float]:
    """The best, the median and the worst, in units of so many seconds, to four digits."""
    found = {"best": min(times), "median": statistics.median(times), "worst": max(times)}
    return {name: float(f"{value / unit:.4g}") for name, value in found.items()}


def ratio(above: list[float], below: list[float]) -> dict[str, float]:
    """Of the best, of the medians, and of each round: the median, the lowest and the highest."""
    by_round = [a / b for a, b in zip(above, below, strict=True)]
    found = {
        "best": min(above) / min(below),
        "median": statistics.median(above) / statistics.median(below),
        "by_round": statistics.median(by_round),
        "lowest": min(by_round),
        "highest": max(by_round),
    }
    return {name: round(value, 3) for name, value in found.items()}
