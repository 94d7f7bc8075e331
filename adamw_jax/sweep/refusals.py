"""What an object store's refusals mean, in words that hold no secrets.

The texts of obstore repeat the store's answers, which may repeat the request with an access key, a
signature or a session token. So nothing of them is shown but codes and numbers that are known to be
harmless.
"""

import errno
import os
import re
from urllib.parse import urlsplit

from adamw_jax.sweep.files import StoreError

CREDENTIALS = {
    "s3": "AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and, for temporary ones, AWS_SESSION_TOKEN",
    "gs": "GOOGLE_APPLICATION_CREDENTIALS or GOOGLE_SERVICE_ACCOUNT",
    "az": "AZURE_STORAGE_ACCOUNT_NAME and AZURE_STORAGE_ACCOUNT_KEY",
}
# A store's own word for what is wrong, in XML, in obstore's text and in JSON.
CODE = r'<Code>(\w{1,64})</Code>|\(code: (\w{1,64})\)|"code": ?"?(\w{1,64})'
# The addresses at which a machine's cloud tells credentials, and what is said without an account.
UNKNOWN = (
    "/latest/(api/token|meta-data)|computeMetadata|metadata/identity|Missing(Account|Secret|Access)"
)
# How an error of the connection shows in the text, and what it is called; the first one counts.
CAUSES = {
    "dns error": "the server's name is not known",
    "ConnectionRefused": "the connection was refused",
    "TimedOut": "no answer in time",
    "kind: Timeout": "no answer in time",
    "certificate": "the server's certificate is not trusted",
    "URL scheme is not allowed": "http:// is not allowed",
    "kind: Connect": "no connection",
    "HTTP error": "the connection broke off",
}


def explained(error: Exception, path: str) -> StoreError | FileNotFoundError:
    """An error of obstore, in our words.

    Args:
      error: the error.
      path: the full address of the object or folder.
    """
    text, scheme = str(error), path.partition("://")[0]
    code, status = re.search(CODE, text), re.search(r"status code: (\d{3})", text)
    told = code[code.lastindex or 0] if code else f"status {status[1]}" if status else None
    if told == "NoSuchBucket":
        bucket = path.split("/")[2]
        return StoreError(f"there is no bucket {bucket!r}: make it first, or correct {path}")
    if isinstance(error, FileNotFoundError):
        return FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)
    if re.search(UNKNOWN, text):
        return StoreError(
            f"no credentials for {path} were found, neither in the environment nor from the "
            f"machine's cloud: set {CREDENTIALS[scheme]}"
        )
    request = re.search(r"[Ee]rror performing ([A-Z]+) (\S+) in ", text)
    server = urlsplit(request[2]).netloc.rpartition("@")[2] if request else "the server"
    if told == "AccessDenied" or (status and status[1] in ("401", "403")):
        return StoreError(
            f"{server} denies access to {path} ({told}): check {CREDENTIALS[scheme]}, and what "
            "they permit"
        )
    if told in ("PermanentRedirect", "AuthorizationHeaderMalformed", "status 301"):
        return StoreError(f"{path} is in another region ({told}): set AWS_REGION")
    cause = told or next((words for sign, words in CAUSES.items() if sign in text), "it failed")
    retries = re.search(r"after (\d+) retries", text)
    tried = f", after {retries[1]} retries" if retries else ""
    return StoreError(
        f"{path} cannot be reached at {server}: {cause}{tried}. What is kept stays; make the same "
        "call again to go on"
    )
