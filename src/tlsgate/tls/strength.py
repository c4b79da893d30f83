"""
How strong a certificate has to be (RFC 9325 section 4.5), whosever it is and whatever the floor of the handshake.
"""

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa

RSA_BITS_MIN = 2048
EC_BITS_MIN = 224
FORBIDDEN_HASHES = frozenset({"md5", "sha1"})


def key_fault(key: object) -> str:
    """
    Return what is wrong with the strength of a public *key*, empty if nothing.
    """
    match key:
        case rsa.RSAPublicKey() if key.key_size < RSA_BITS_MIN:
            return f"is RSA with {key.key_size} bits; at least {RSA_BITS_MIN} are needed (RFC 9325)"
        case ec.EllipticCurvePublicKey() if key.key_size < EC_BITS_MIN:
            return f"is on a curve of {key.key_size} bits; at least {EC_BITS_MIN} are needed (RFC 9325)"
    return ""


def signature_fault(certificate: x509.Certificate) -> str:
    """
    Return what is wrong with the strength of the signature below *certificate*, empty if nothing.
    """
    algorithm = certificate.signature_hash_algorithm
    if algorithm is not None and algorithm.name in FORBIDDEN_HASHES:
        return f"is signed with {algorithm.name.upper()}; SHA-256 or better is needed (RFC 9325)"
    return ""
