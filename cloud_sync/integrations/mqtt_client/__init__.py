"""What integrations need to speak MQTT to a broker of somebody else."""
