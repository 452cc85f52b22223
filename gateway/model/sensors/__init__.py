"""The sensor types we know, one file each; the wire name is the file's name.

A type that is not here is stored and forwarded as it came. To teach the gateway a new one, add a file with a TypedDict
whose only required field is the one the sensor is useless without, and a line here.
"""

from gateway.model.sensors.ld2410 import Ld2410
from gateway.model.sensors.mq134 import Mq134
from gateway.model.sensors.pir import Pir

SENSORS: dict[str, type] = {"ld2410": Ld2410, "mq134": Mq134, "pir": Pir}

__all__ = ["SENSORS", "Ld2410", "Mq134", "Pir"]
