"""What flashing wrote into config.json: where the gateway is and who this board is. Never changed by the program."""

from app import files


def load(path):
    """Return the configuration. Raises ValueError in words that a person at the console understands."""
    config = files.read_json(path)
    if config is None:
        raise ValueError("%s is missing or no JSON: flash the board again" % path)
    for name, fields in (
        ("wifi", ("ssid", "password")),
        ("gateway", ("host", "port")),
        ("mqtt", ("username", "password")),
    ):
        for field in fields:
            if not isinstance(config.get(name), dict) or field not in config[name]:
                raise ValueError("%s: %s.%s is missing" % (path, name, field))
    for name in ("device_id", "organization_id"):
        if not config.get(name):
            raise ValueError("%s: %s is missing" % (path, name))
    if config["gateway"].get("tls") and not config["gateway"].get("server_name"):
        # without a name to compare with, any certificate of the CA would do
        raise ValueError("%s: gateway.server_name is missing, which TLS needs" % path)
    return config
