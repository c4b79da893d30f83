"""
EHLO replies as old and current servers give them, and what a client may see of each inside TLS.

The texts of the lines stand between bars. What is shown is without the first line, and where AUTH may be used.
"""

from attrs import field, frozen


def _texts(joined: bytes) -> list[bytes]:
    return joined.split(b"|")


def _shown(joined: bytes) -> list[bytes]:
    return joined.split(b"|") if joined else []


@frozen
class Recorded:
    """
    The texts of a server's EHLO reply, and what the gate shows of them behind the first line.
    """

    server: str
    texts: list[bytes] = field(converter=_texts)
    shown: list[bytes] = field(converter=_shown)


RECORDED = [
    Recorded(
        "Exchange 2003",
        b"exch.example.org Hello [192.0.2.1]|TURN|SIZE 10485760|ETRN|PIPELINING|DSN|ENHANCEDSTATUSCODES|"
        b"8bitmime|BINARYMIME|CHUNKING|VRFY|TLS|STARTTLS|X-EXPS GSSAPI NTLM LOGIN|X-EXPS=LOGIN|"
        b"AUTH GSSAPI NTLM LOGIN|AUTH=LOGIN|X-LINK2STATE|XEXCH50|OK",
        b"SIZE 10485760|ETRN|PIPELINING|DSN|ENHANCEDSTATUSCODES|8bitmime|BINARYMIME|CHUNKING|VRFY|"
        b"AUTH GSSAPI NTLM LOGIN|AUTH=LOGIN",
    ),
    Recorded(
        "Exchange 2010",
        b"ex10.example.org Hello [192.0.2.1]|SIZE 10485760|PIPELINING|DSN|ENHANCEDSTATUSCODES|STARTTLS|"
        b"X-ANONYMOUSTLS|AUTH NTLM LOGIN|X-EXPS GSSAPI NTLM|8BITMIME|BINARYMIME|CHUNKING|XEXCH50|XRDST|"
        b"XSHADOW",
        b"SIZE 10485760|PIPELINING|DSN|ENHANCEDSTATUSCODES|AUTH NTLM LOGIN|8BITMIME|BINARYMIME|CHUNKING",
    ),
    Recorded(
        "Exchange 2016",
        b"ex16.example.org Hello [192.0.2.1]|SIZE 37748736|PIPELINING|DSN|ENHANCEDSTATUSCODES|STARTTLS|"
        b"X-ANONYMOUSTLS|AUTH NTLM|X-EXPS GSSAPI NTLM|8BITMIME|BINARYMIME|CHUNKING|SMTPUTF8|XRDST",
        b"SIZE 37748736|PIPELINING|DSN|ENHANCEDSTATUSCODES|AUTH NTLM|8BITMIME|BINARYMIME|CHUNKING|SMTPUTF8",
    ),
    Recorded(
        "IIS SMTP 6",
        b"web Hello [192.0.2.1]|TURN|SIZE 2097152|ETRN|PIPELINING|DSN|ENHANCEDSTATUSCODES|8bitmime|"
        b"BINARYMIME|CHUNKING|VRFY|OK",
        b"SIZE 2097152|ETRN|PIPELINING|DSN|ENHANCEDSTATUSCODES|8bitmime|BINARYMIME|CHUNKING|VRFY",
    ),
    Recorded(
        "Domino 8.5",
        b"domino.example.org Hello client ([192.0.2.1]), pleased to meet you|TLS|HELP|STARTTLS|"
        b"SIZE 52428800|PIPELINING",
        b"HELP|SIZE 52428800|PIPELINING",
    ),
    Recorded(
        "Lotus Notes 4 MTA",
        b"notes.example.org|HELP|SIZE",
        b"HELP|SIZE",
    ),
    Recorded(
        "qmail",
        b"qmail.example.org|PIPELINING|8BITMIME",
        b"PIPELINING|8BITMIME",
    ),
    Recorded(
        "netqmail with TLS and AUTH patches",
        b"netqmail.example.org|AUTH LOGIN PLAIN CRAM-MD5|AUTH=LOGIN PLAIN CRAM-MD5|STARTTLS|PIPELINING|8BITMIME|SIZE 0",
        b"AUTH LOGIN PLAIN CRAM-MD5|AUTH=LOGIN PLAIN CRAM-MD5|PIPELINING|8BITMIME|SIZE 0",
    ),
    Recorded(
        "IBM i",
        b"AS400.EXAMPLE.ORG|8BITMIME|SIZE 1073741824|DSN|ETRN|HELP",
        b"8BITMIME|SIZE 1073741824|DSN|ETRN|HELP",
    ),
    Recorded(
        "Postfix 2.3",
        b"postfix.example.org|PIPELINING|SIZE 10240000|VRFY|ETRN|XCLIENT NAME ADDR PROTO HELO|"
        b"XFORWARD NAME ADDR PROTO HELO SOURCE|ENHANCEDSTATUSCODES|8BITMIME|DSN",
        b"PIPELINING|SIZE 10240000|VRFY|ETRN|ENHANCEDSTATUSCODES|8BITMIME|DSN",
    ),
    Recorded(
        "Postfix 3.8",
        b"postfix.example.org|PIPELINING|SIZE 10240000|VRFY|ETRN|STARTTLS|AUTH PLAIN LOGIN|"
        b"AUTH=PLAIN LOGIN|ENHANCEDSTATUSCODES|8BITMIME|DSN|SMTPUTF8|CHUNKING",
        b"PIPELINING|SIZE 10240000|VRFY|ETRN|AUTH PLAIN LOGIN|AUTH=PLAIN LOGIN|ENHANCEDSTATUSCODES|"
        b"8BITMIME|DSN|SMTPUTF8|CHUNKING",
    ),
    Recorded(
        "Exim 4.96",
        b"exim.example.org Hello client [192.0.2.1]|SIZE 52428800|LIMITS MAILMAX=1000 RCPTMAX=50000|"
        b"8BITMIME|PIPELINING|PIPECONNECT|CHUNKING|PRDR|STARTTLS|HELP",
        b"SIZE 52428800|LIMITS MAILMAX=1000 RCPTMAX=50000|8BITMIME|PIPELINING|CHUNKING|HELP",
    ),
    Recorded(
        "Sendmail 8.17",
        b"sendmail.example.org Hello client [192.0.2.1], pleased to meet you|ENHANCEDSTATUSCODES|"
        b"PIPELINING|EXPN|VERB|8BITMIME|SIZE|DSN|ETRN|AUTH DIGEST-MD5 CRAM-MD5|DELIVERBY|HELP",
        b"ENHANCEDSTATUSCODES|PIPELINING|EXPN|8BITMIME|SIZE|DSN|ETRN|AUTH DIGEST-MD5 CRAM-MD5|DELIVERBY|HELP",
    ),
    Recorded(
        "Sendmail 8.8",
        b"old.example.org Hello client [192.0.2.1], pleased to meet you|EXPN|VERB|8BITMIME|SIZE|DSN|ONEX|"
        b"ETRN|XUSR|HELP",
        b"EXPN|8BITMIME|SIZE|DSN|ETRN|HELP",
    ),
    Recorded(
        "OpenSMTPD",
        b"opensmtpd.example.org Hello client [192.0.2.1], pleased to meet you|8BITMIME|"
        b"ENHANCEDSTATUSCODES|SIZE 36700160|DSN|HELP",
        b"8BITMIME|ENHANCEDSTATUSCODES|SIZE 36700160|DSN|HELP",
    ),
    Recorded(
        "Courier",
        b"courier.example.org Ok.|STARTTLS|XVERP=Courier|XEXDATA|XSECURITY=NONE,STARTTLS|PIPELINING|"
        b"8BITMIME|SIZE|AUTH LOGIN|DSN",
        b"PIPELINING|8BITMIME|SIZE|AUTH LOGIN|DSN",
    ),
    Recorded(
        "MDaemon",
        b"mdaemon.example.org Hello client [192.0.2.1], pleased to meet you|ETRN|"
        b"AUTH LOGIN CRAM-MD5 PLAIN|8BITMIME|ENHANCEDSTATUSCODES|PIPELINING|CHUNKING|STARTTLS|REQUIRETLS|"
        b"SIZE",
        b"ETRN|AUTH LOGIN CRAM-MD5 PLAIN|8BITMIME|ENHANCEDSTATUSCODES|PIPELINING|CHUNKING|SIZE",
    ),
    Recorded(
        "hMailServer",
        b"HMAIL|SIZE 20480000|AUTH LOGIN|HELP",
        b"SIZE 20480000|AUTH LOGIN|HELP",
    ),
    Recorded(
        "Zimbra",
        b"zimbra.example.org|PIPELINING|SIZE 10240000|VRFY|ETRN|STARTTLS|AUTH LOGIN PLAIN|"
        b"AUTH=LOGIN PLAIN|ENHANCEDSTATUSCODES|8BITMIME|DSN",
        b"PIPELINING|SIZE 10240000|VRFY|ETRN|AUTH LOGIN PLAIN|AUTH=LOGIN PLAIN|ENHANCEDSTATUSCODES|8BITMIME|DSN",
    ),
    Recorded(
        "Haraka",
        b"haraka.example.org Hello client [192.0.2.1], Haraka is at your service.|PIPELINING|8BITMIME|"
        b"SMTPUTF8|SIZE 0|STARTTLS|AUTH PLAIN LOGIN CRAM-MD5",
        b"PIPELINING|8BITMIME|SMTPUTF8|SIZE 0|AUTH PLAIN LOGIN CRAM-MD5",
    ),
    Recorded(
        "Apache James",
        b"james.example.org Hello client [192.0.2.1])|AUTH LOGIN PLAIN|AUTH=LOGIN PLAIN|PIPELINING|"
        b"ENHANCEDSTATUSCODES|8BITMIME|STARTTLS",
        b"AUTH LOGIN PLAIN|AUTH=LOGIN PLAIN|PIPELINING|ENHANCEDSTATUSCODES|8BITMIME",
    ),
    Recorded(
        "aiosmtpd",
        b"aiosmtpd.example.org|SIZE 33554432|8BITMIME|SMTPUTF8|HELP",
        b"SIZE 33554432|8BITMIME|SMTPUTF8|HELP",
    ),
    Recorded(
        "a server with nothing to offer",
        b"bare.example.org",
        b"",
    ),
    Recorded(
        "a server that says nothing at all",
        b"",
        b"",
    ),
    Recorded(
        "a server that offers only what is hidden",
        b"x.example.org|STARTTLS|XCLIENT ADDR",
        b"",
    ),
    Recorded(
        "odd case",
        b"Odd.Example.Org|Pipelining|startTls|size 100|Auth login plain external|xClient addr",
        b"Pipelining|size 100|AUTH LOGIN PLAIN",
    ),
    Recorded(
        "trailing and doubled blanks",
        b"blank.example.org |PIPELINING |STARTTLS |STARTTLS x|AUTH  PLAIN  LOGIN |SIZE  5| 8BITMIME|| |XCLIENT ",
        b"PIPELINING |AUTH PLAIN LOGIN|SIZE  5",
    ),
    Recorded(
        "a tab behind the keyword",
        b"tab.example.org|STARTTLS\t|XCLIENT\tADDR|SIZE\t5|8BITMIME",
        b"8BITMIME",
    ),
    Recorded(
        "mechanisms that break through a TLS terminator",
        b"sasl.example.org|AUTH SCRAM-SHA-256-PLUS SCRAM-SHA-256 EXTERNAL|AUTH=EXTERNAL|AUTH=EXTERNAL PLAIN",
        b"AUTH SCRAM-SHA-256|AUTH=PLAIN",
    ),
    Recorded(
        "AUTH with nothing that can be used",
        b"sasl.example.org|AUTH|AUTH |AUTH EXTERNAL SCRAM-SHA-1-PLUS|AUTH=|AUTH= ",
        b"",
    ),
]
