"""Whether the gateway runs, answers, is of this version, and what it says of itself."""

from prometheus_client.parser import text_string_to_metric_families

from gateway import __version__
from gateway.doctor.evidence import Evidence
from gateway.model.finding import Finding, broken, fine, warning


async def gateway(evidence: Evidence) -> list[Finding]:
    """Tell how the running gateway is."""
    found = [broken(one.message, one.hint) for one in evidence.complaints]
    status = evidence.status
    if status is None:
        if not evidence.is_running and not found:
            found.append(
                warning(
                    "No gateway is running.", "Start it: neurogate run, or systemctl start neurogate for the service."
                )
            )
        return found
    if status.version == __version__:
        found.append(fine(f"It runs (version {status.version}), for {_duration(status.uptime_seconds)}."))
    else:
        found.append(warning(f"Version {status.version} runs, this command is {__version__}.", "Restart the gateway."))
    found += [broken(problem, "See its log; neurogate diag collects it.") for problem in status.problems]
    found += [warning(notice, "The gateway goes on by itself; its log says more.") for notice in status.notices]
    if restarts := _restarts(evidence):
        words = ", ".join(f"{part} ({times:g} times)" for part, times in restarts)
        found.append(warning(f"Parts have crashed and were started again: {words}.", "Report it: neurogate diag."))
    return found


def _restarts(evidence: Evidence) -> list[tuple[str, float]]:
    if evidence.vitals is None:
        return []
    return [
        (sample.labels["part"], sample.value)
        for family in text_string_to_metric_families(evidence.vitals.metrics)
        for sample in family.samples
        if sample.name == "neurogate_part_restarts_total" and sample.value
    ]


def _duration(seconds: float) -> str:
    minutes = round(seconds / 60)
    if minutes < 120:  # noqa: PLR2004 - two hours
        return f"{minutes} min"
    return f"{minutes // 60} h" if minutes < 72 * 60 else f"{minutes // 1440} days"
