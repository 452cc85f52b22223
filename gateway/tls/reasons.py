"""Why a handshake failed, as one of a few words for log and metric, and what OpenSSL says about it."""

import ssl

_BY_PEER = {
    # alerts (RFC 8446, 6.2): the client does not accept what it was shown
    "TLSV1_ALERT_UNKNOWN_CA": "tls_unknown_ca",
    "SSLV3_ALERT_CERTIFICATE_EXPIRED": "tls_certificate_expired",
    "SSLV3_ALERT_BAD_CERTIFICATE": "tls_bad_certificate",
    "SSLV3_ALERT_CERTIFICATE_UNKNOWN": "tls_bad_certificate",
    "SSLV3_ALERT_UNSUPPORTED_CERTIFICATE": "tls_bad_certificate",
    "TLSV1_ALERT_INTERNAL_ERROR": "tls_bad_certificate",  # mosquitto's clients, when the name is another
    # what the client is, or does not show
    "PEER_DID_NOT_RETURN_A_CERTIFICATE": "tls_certificate_required",
    "UNSUPPORTED_PROTOCOL": "tls_version",
    "VERSION_TOO_LOW": "tls_version",
    "TLSV1_ALERT_PROTOCOL_VERSION": "tls_version",
    "NO_SHARED_CIPHER": "tls_no_common_cipher",
    "NO_SUITABLE_SIGNATURE_ALGORITHM": "tls_no_common_cipher",
    "WRONG_VERSION_NUMBER": "tls_not_tls",
    "HTTP_REQUEST": "tls_not_tls",
    "HTTPS_PROXY_REQUEST": "tls_not_tls",
    "UNKNOWN_PROTOCOL": "tls_not_tls",
}
_UNKNOWN_ISSUER = frozenset({2, 18, 19, 20, 21})  # X509_V_ERR_UNABLE_TO_GET_ISSUER_CERT and the like (x509_vfy.h)
_EXPIRED = 10

_WORDS = {
    "tls_unknown_ca": "the client does not know the CA of our certificate: give it that of neurogate certs show --ca",
    "tls_certificate_expired": "the client says that our certificate has ended: look at its clock and ours",
    "tls_bad_certificate": "the client does not accept our certificate: it may reach us by a name that is not in it"
    " (neurogate certs show; tls.names adds more)",
    "tls_certificate_required": "the client shows no certificate, and tls.client_certificates says that it must",
    "tls_client_unknown_ca": "the client's certificate is not from the site's own CA (neurogate certs issue makes one)",
    "tls_client_expired": "the client's certificate has ended (neurogate certs issue makes a new one)",
    "tls_not_tls": "the client does not speak TLS on this port",
    "tls_version": "the client speaks no TLS 1.2 or newer",
}


def reason_of(error: ssl.SSLError) -> tuple[str, str]:
    """Return the reason, and words for the log."""
    if isinstance(error, ssl.SSLCertVerificationError):
        code = error.verify_code
        reason = "tls_client_bad_certificate"
        if code in _UNKNOWN_ISSUER:
            reason = "tls_client_unknown_ca"
        elif code == _EXPIRED:
            reason = "tls_client_expired"
        return reason, _WORDS.get(reason, error.verify_message)
    told = error.reason or str(error)
    reason = _BY_PEER.get(told, "tls_error")
    return reason, _WORDS.get(reason, told.lower().replace("_", " "))
