"""Who may call the JSON routes of the tests: a file with one caller of each kind, and their proofs."""

from __future__ import annotations

import base64
import hashlib
import json
import time

import jwt
from cryptography.hazmat.primitives.asymmetric import rsa

OURS, OTHERS = "11111111-aaaa-4aaa-8aaa-111111111111", "22222222-bbbb-4bbb-8bbb-222222222222"
AUDIENCE = "33333333-cccc-4ccc-8ccc-333333333333"
APPLICATION, VISITOR = "44444444-dddd-4ddd-8ddd-444444444444", "55555555-eeee-4eee-8eee-555555555555"
PASSWORD, SECRET = "correct horse battery", "only the gateway knows"
CERTIFICATE = b"0\x82 not looked into: the thumbprint of these bytes is what is pinned"
_KEY = rsa.generate_private_key(public_exponent=65537, key_size=2048)
FORGED_KEY = rsa.generate_private_key(public_exponent=65537, key_size=2048)


def entra_token(*, key=_KEY, algorithm="RS256", **claims):
    """Sign what Entra ID would give the listed application, with other claims where named; None leaves one out."""
    tenant = claims.get("tid", OURS)
    instant = int(time.time())
    said = {
        "iss": f"https://login.microsoftonline.com/{tenant}/v2.0",
        "tid": OURS,
        "aud": AUDIENCE,
        "azp": APPLICATION,
        "roles": ["Scores.Ask"],
        "iat": instant - 300,
        "nbf": instant - 300,
        "exp": instant + 3600,
        "ver": "2.0",
        **claims,
    }
    said = {name: value for name, value in said.items() if value is not None}
    return jwt.encode(said, key, algorithm=algorithm, headers={"kid": "k1"})


def basic(user, password=PASSWORD):
    return base64.b64encode(f"{user}:{password}".encode()).decode()


def callers():
    """Give the content of the file."""
    tenants = [{"tenant": tenant, "audience": AUDIENCE, "jwks_file": "entra.json"} for tenant in (OURS, OTHERS)]
    application = {"tenant": OURS, "application": APPLICATION, "role": "Scores.Ask"}
    thumbprint = hashlib.sha256(CERTIFICATE).hexdigest()
    return {
        "callers": [
            {"name": "engine", "models": ["hematocrit"], "password": PASSWORD},
            {"name": "other", "models": ["*"], "password": PASSWORD},
            {"name": "visitor", "models": ["visitors-own"], "password": PASSWORD},
            {"name": "entra", "models": ["hematocrit"], **application},
            {"name": "mutual", "models": ["hematocrit"], "certificate_sha256": thumbprint},
        ],
        "tenants": tenants,
        "gateway": {"header": "X-Gateway-Proof", "secret": SECRET},
    }


def write_callers(folder, name="callers.json", **changes):
    """Write the file and the key set beside it; give the file's path."""
    public = jwt.algorithms.RSAAlgorithm.to_jwk(_KEY.public_key(), as_dict=True)
    key_set = {"keys": [{**public, "kid": "k1", "use": "sig"}]}
    (folder / "entra.json").write_text(json.dumps(key_set))
    (folder / name).write_text(json.dumps({**callers(), **changes}))
    return str(folder / name)


def fault_values(folder):
    """Give what the fault rows call by name: the files, and what goes into headers."""
    return {
        "callers": write_callers(folder),
        "slow_callers": write_callers(folder, "slow.json", per_second=0.01),
        "misspelt_callers": write_callers(folder, "misspelt.json", tenant=[]),
        "token": entra_token(),
        "token_forged": entra_token(key=FORGED_KEY),
        "token_stale": entra_token(exp=int(time.time()) - 61),
        "token_of_a_person": entra_token(scp="user_impersonation"),
        "token_other_audience": entra_token(aud=VISITOR),
        "token_other_tenant": entra_token(tid=OTHERS),
        "token_unknown_tenant": entra_token(tid=VISITOR),
        "token_other_application": entra_token(azp=VISITOR),
        "token_without_role": entra_token(roles=[]),
        "engine": basic("engine"),
        "other": basic("other"),
        "visitor": basic("visitor"),
        "wrong_password": basic("engine", "another horse battery"),
        "certificate": base64.b64encode(CERTIFICATE).decode(),
        "other_certificate": base64.b64encode(CERTIFICATE[:-1]).decode(),
    }
