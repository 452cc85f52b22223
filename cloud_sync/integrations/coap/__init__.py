"""CoAP over DTLS with pre-shared keys, as a client: messages, the secured socket, and requests over it."""
