"""The program of a board: what it measures reaches the gateway, once and in order, also after hours without network."""

VERSION = "0.1.0"
