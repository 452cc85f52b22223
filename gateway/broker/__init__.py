"""MQTT: the front door that owns every connection, and amqtt behind it for subscriptions."""
