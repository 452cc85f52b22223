"""What is wrong with a gateway, its machine and what it talks to, in plain words and with the next step."""
