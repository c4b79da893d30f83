"""
The language: bytes to values and back, RFC 5321 and its extensions. Pure, strict, bounded.
"""
