#!/usr/bin/env python3
"""Whether the daemon in this container lives: exit status 0 or 1. Needs only Python itself."""

import json
import os
import ssl
import sys
import urllib.request

TIMEOUT_S = 4.0


def main() -> int:
    """Ask /health, which wants no token, on the loopback address."""
    port = os.environ.get("AVATAR_SERVER__PORT", "8081")
    tls = bool(os.environ.get("AVATAR_SERVER__TLS_CERT"))
    url = f"{'https' if tls else 'http'}://127.0.0.1:{port}/health"
    # The certificate is for the name that the world uses, and this goes to our own container.
    context = ssl._create_unverified_context() if tls else None
    # A proxy of the environment has no part in this.
    opener = urllib.request.build_opener(
        urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=context)
    )
    try:
        with opener.open(url, timeout=TIMEOUT_S) as answer:
            body = json.load(answer)
    except (OSError, ValueError) as error:
        sys.stdout.write(f"{url}: {error}\n")
        return 1
    sys.stdout.write(f"{body['status']}: {body['renderer']} on {body['device']}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
