"""Checks an ID token: signature, issuer, audience, times and nonce, by Authlib and joserfc."""

from typing import Any

from app.accounts.oidc.provider import CACHE, Provider, Tokens
from app.core.settings import settings

# By public keys only: a token "signed" with none, or with a secret that others know, is never accepted.
ALGORITHMS = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA", "Ed25519")
LEEWAY_SECONDS = 120  # that the provider's clock may differ from this machine's
MAX_SUBJECT = 255  # characters, as OpenID Connect has it
MAX_TOKEN = 100_000  # characters


class TokenInvalid(Exception):
    """The ID token is not one that this login may be believed by; the text is for the operator's log."""


class ClocksDiffer(Exception):
    """The ID token has expired or is from the future."""


def checked_claims(provider: Provider, tokens: Tokens, *, nonce: str) -> dict[str, Any]:
    """The claims of the ID token of this login.

    Raises TokenInvalid, ClocksDiffer, and what reading the keys again raises: ProviderUnreachable,
    ProviderAnswerInvalid.
    """
    from authlib.oidc.core import CodeIDToken
    from joserfc.errors import ClaimError, ExpiredTokenError, InvalidClaimError, JoseError

    token = _verified(provider, tokens.id_token)
    expected = {
        "iss": {"essential": True, "value": provider.issuer},
        "aud": {"essential": True, "value": settings().oidc_client_id},
        "nonce": {"essential": True, "value": nonce},
    }
    params = {"nonce": nonce, "client_id": settings().oidc_client_id, "access_token": tokens.access_token}
    claims = CodeIDToken(token.claims, token.header, expected, params)
    try:
        claims.validate(leeway=LEEWAY_SECONDS)
    except ExpiredTokenError:
        raise ClocksDiffer(f"it expired at {claims.get('exp')}") from None
    except InvalidClaimError as error:
        if error.claim in ("iat", "nbf") and isinstance(claims.get(error.claim), int | float):
            raise ClocksDiffer(f"its {error.claim} is {claims[error.claim]}") from None
        raise TokenInvalid(f"the claim {error.claim} is wrong") from None
    except (ClaimError, JoseError, TypeError, ValueError) as error:
        raise TokenInvalid(str(error)) from None
    subject = claims["sub"]
    if not subject or len(subject) > MAX_SUBJECT or not subject.isprintable():
        raise TokenInvalid("the claim sub is wrong")
    return dict(claims)


def _verified(provider: Provider, id_token: str) -> Any:
    """The token, whose signature is right. Keys are read again if it names one that is not known yet."""
    from joserfc.errors import InvalidKeyIdError

    try:
        return _decode(provider, id_token)
    except InvalidKeyIdError:
        fresh = CACHE.get(fresh_keys=True)
        try:
            return _decode(fresh, id_token)
        except InvalidKeyIdError:
            raise TokenInvalid("it is signed by a key that the provider does not publish") from None


def _decode(provider: Provider, id_token: str) -> Any:
    """The decoded token. Raises TokenInvalid, InvalidKeyIdError."""
    from joserfc import jwt
    from joserfc.errors import InvalidKeyIdError, JoseError
    from joserfc.jwk import KeySet
    from joserfc.jws import JWSRegistry

    supported = provider.metadata.get("id_token_signing_alg_values_supported", ["RS256"])
    algorithms = [name for name in ALGORITHMS if isinstance(supported, list) and name in supported]
    if not algorithms:
        raise TokenInvalid("the provider signs with none of the algorithms that are accepted")
    if len(id_token) > MAX_TOKEN:
        raise TokenInvalid(f"it has more than {MAX_TOKEN} characters")
    try:
        keys = KeySet.import_key_set({"keys": _signing_keys(provider)})
        registry = JWSRegistry(algorithms=algorithms, strict_check_header=False)
        return jwt.decode(id_token, key=keys, registry=registry)
    except InvalidKeyIdError:
        raise
    except (JoseError, TypeError, ValueError) as error:
        raise TokenInvalid(str(error) or type(error).__name__) from None


def _signing_keys(provider: Provider) -> list[Any]:
    """The keys that sign, as JWKs. Those that encrypt may be of kinds that cannot be imported."""
    return [key for key in provider.keys["keys"] if key.get("use", "sig") == "sig" and key.get("kty") != "oct"]
