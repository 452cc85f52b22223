"""Whether readings wait: for the disk, or because more comes in than can be stored."""

from prometheus_client.parser import text_string_to_metric_families

from gateway.doctor.evidence import Evidence
from gateway.model.finding import Finding, fine, warning

_LATENCY = "sensor_data_processing_latency_seconds"
_SLOW = "1.0"
_FEW = 100
_SLOW_SHARE = 0.01
_WAITING_AT_MOST = 5_000


async def latency(evidence: Evidence) -> list[Finding]:
    """Look at how long readings took from receipt to commit since the start, and how many wait now."""
    if evidence.vitals is None:
        return []
    stored = quick = waiting = 0.0
    for family in text_string_to_metric_families(evidence.vitals.metrics):
        for sample in family.samples:
            if sample.name == f"{_LATENCY}_count":
                stored = sample.value
            elif sample.name == f"{_LATENCY}_bucket" and sample.labels["le"] == _SLOW:
                quick = sample.value
            elif sample.name == "queue_size":
                waiting = sample.value
    found = []
    if waiting > _WAITING_AT_MOST:
        found.append(
            warning(f"{waiting:,.0f} readings wait for the disk.", "See the check disk; a faster disk is what helps.")
        )
    if stored >= _FEW and stored - quick > stored * _SLOW_SHARE:
        share = (stored - quick) / stored
        words = f"{share:.0%} of the readings were stored and acknowledged after more than a second."
        found.append(warning(words, "See the check disk, and whether other programs write much: iotop -o."))
    return found or ([fine(f"{stored:,.0f} readings stored since the start, without a wait.")] if stored else [])
