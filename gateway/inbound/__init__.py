"""What integrations receive from elsewhere, such as a customer's broker, becomes readings; see `engine.py`."""
