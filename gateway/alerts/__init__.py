"""Alerts: what is looked at (`watch`), and what is made of it (`engine`)."""
