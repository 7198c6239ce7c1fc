"""`OperatorHome`: the directory that holds the mesh's trust.

    home.json             format, name, context keys and signing keys (newest last)
    operator.jwt          the root of trust
    accounts/*.jwt        sys and mesh as they were pushed last; edge without what changes all day
    operator.conf         operator and accounts for nats-server, without a secret
    server.conf           one node, ready for `nats-server -c`
    keys/*.nk             seeds; operator.nk, sys.nk, edge.nk, mesh.nk are never read again and
                          belong offline; context-root.nk is read where context keys change,
                          the others sign
    creds/*.creds         router, control, sys; service.<name>.creds once a service has been run
    context/<kid>.seed    keys that sign tenant contexts
    context/<kid>.json    their public halves, certified by context-root.nk

A process needs only the seeds that it uses: a missing one is an error when it is asked for.
"""

from __future__ import annotations

import hashlib
import shutil
import tempfile
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import MappingProxyType

import msgspec

from tenantry import subjects
from tenantry.errors import SetupError
from tenantry.messages import VerifyKey
from tenantry.operator import accounts, claims, creds, files, folder, plant
from tenantry.operator.certificate import certify
from tenantry.operator.keys import KeyPair, Kind, is_public_key
from tenantry.operator.server_conf import ServerOptions, render_server_conf

SERVICE = "service"
_LONG = 100


class OperatorHome:
    """A loaded home. Made by :meth:`create` or :meth:`load`."""

    def __init__(
        self,
        path: Path,
        manifest: plant.Manifest,
        operator: claims.Claims,
        documents: Mapping[str, claims.Claims],
    ) -> None:
        self.path = path
        self._manifest = manifest
        self._operator = operator
        self._accounts = dict(documents)
        self._keys: dict[str, KeyPair] = {}
        self._scope_keys: dict[tuple[str, str], KeyPair] = {}
        self._edge_issued = documents["edge"].iat
        self._stamp = folder.stamp(path)

    @classmethod
    def create(
        cls, path: Path | str, *, name: str = "tenantry", server: ServerOptions | None = None
    ) -> OperatorHome:
        """Make a new home; all of it or, on any failure, nothing.

        `server` is what `server.conf` says; by default a server on port 4222 of this machine that
        keeps its data in `<path>/data`. Raises SetupError, also when `path` is in use.
        """
        home = Path(path).absolute()
        options = server or ServerOptions(
            store_dir=str(home / "data" / "jetstream"), resolver_dir=str(home / "data" / "accounts")
        )
        folder.refuse_used(home)
        try:
            home.parent.mkdir(parents=True, exist_ok=True)
            nursery = Path(tempfile.mkdtemp(prefix=f".{home.name}.", dir=home.parent))
        except OSError as error:
            raise folder.cannot_create(home, error) from error
        try:
            plant.plant(nursery, name, options)
            young = cls.load(nursery)
            for role in plant.ROLE_KEYS:
                if role == SERVICE:
                    continue  # made for each service when it is first run
                text = young.issue_role(role, role)
                files.write(nursery / "creds" / f"{role}.creds", text, secret=True)
            nursery.rename(home)
        except OSError as error:
            raise folder.cannot_create(home, error) from error
        finally:
            shutil.rmtree(nursery, ignore_errors=True)
        return cls.load(home)

    @classmethod
    def load(cls, path: Path | str) -> OperatorHome:
        """Open a home and verify its documents. Raises SetupError."""
        home = Path(path).absolute()
        return cls(home, *folder.read(home))

    def refresh(self) -> bool:
        """Take over what a command has changed in the files. True where there was something.

        Raises SetupError.
        """
        if folder.stamp(self.path) == self._stamp:
            return False
        stamp = folder.stamp(self.path)
        self._manifest, self._operator, documents = folder.read(self.path)
        self._accounts = dict(documents)
        self._edge_issued = max(self._edge_issued, documents["edge"].iat)
        self._keys.clear()
        self._scope_keys.clear()
        self._stamp = stamp
        return True

    @property
    def name(self) -> str:
        """The name given at creation."""
        return self._manifest.name

    @property
    def operator_public_key(self) -> str:
        """Public key of the operator."""
        return self._operator.sub

    @property
    def sys_public_key(self) -> str:
        """Public key of the account SYS."""
        return self._accounts["sys"].sub

    @property
    def edge_public_key(self) -> str:
        """Public key of the account EDGE."""
        return self._accounts["edge"].sub

    @property
    def mesh_public_key(self) -> str:
        """Public key of the account MESH."""
        return self._accounts["mesh"].sub

    @property
    def context_root(self) -> str:
        """Public key of the root of the context keys; empty in a home of an older version."""
        return self._manifest.context_root

    @property
    def tenant_key(self) -> str:
        """Public key of the key that signs the credentials of tenants now."""
        return self.live_keys(plant.TENANT_KEY)[-1].key

    @property
    def manifest(self) -> plant.Manifest:
        """What `home.json` says."""
        return self._manifest

    def account(self, name: str) -> claims.Claims:
        """The claims of the account sys, edge or mesh, as the file has them."""
        return self._accounts[name]

    def signing_keys(self, label: str) -> tuple[plant.SigningKey, ...]:
        """All signing keys of a label (:data:`plant.SIGNING`), newest last."""
        if found := self._manifest.signing.get(label):
            return found
        account, role = plant.place_of(label)
        document = self._accounts[account]
        return tuple(
            plant.SigningKey(key=scoped.key, file=label, created=document.iat)
            for scoped in claims.read(document, claims.Account).signing_keys
            if scoped.role == role
        )

    def live_keys(self, label: str) -> list[plant.SigningKey]:
        """Those that are not revoked. Raises SetupError where none is left."""
        live = [key for key in self.signing_keys(label) if key.revoked is None]
        if not live:
            raise SetupError(f"no signing key {label} is left", hint=folder.BACKUP)
        return live

    def creds_path(self, role: str) -> Path:
        """Where the credentials of a role (router, control, sys) lie."""
        return self.path / "creds" / f"{role}.creds"

    def service_creds(self, services: Iterable[str]) -> Path:
        """The credentials for exactly these services, `creds/service.<names>.creds`.

        They are made when they are first asked for, and then stay: who is connected with them
        comes back with them. Raises SetupError.
        """
        names = sorted(set(services))
        label = "+".join(names)
        if len(label) > _LONG:
            label = hashlib.sha256(label.encode()).hexdigest()[:16]
        path = self.creds_path(f"{SERVICE}.{label}")
        if not path.exists():
            self.refresh()  # by the key of now: another process may have rotated it
            text = self.issue_role(SERVICE, label, services=names)
            files.write(path, text, secret=True, keep=True)
        creds.check_covers(path, names)
        return path

    def issue_role(self, role: str, name: str, *, services: Iterable[str] = ()) -> str:
        """New credentials for a worker: role router, service, control (MESH) or sys (SYS).

        `name` is for people. Those of the role service are for the `services` that are named, and
        need at least one. Raises SetupError.
        """
        label = plant.ROLE_KEYS.get(role)
        if label is None:
            known = ", ".join(plant.ROLE_KEYS)
            raise SetupError(f"unknown role {role!r}", hint=f"one of {known}")
        return self._issue(label, name, creds.service_tags(_checked(role, services)))

    def reissue(self, label: str, former: creds.Credentials) -> str:
        """The same credentials with a new key pair, by the key that signs for the label now.

        Raises SetupError.
        """
        tags = creds.own_tags(former.user.tags)
        return self._issue(label, former.claims.name, tags, former.claims.exp)

    def _issue(self, label: str, name: str, tags: tuple[str, ...], expires: int = 0) -> str:
        account = self._accounts[plant.place_of(label)[0]].sub
        if self.context_root and account == self.mesh_public_key:
            tags = (*tags, creds.root_tag(self.context_root))
        user = KeyPair.generate(Kind.USER)
        jwt = claims.encode(
            claims.User(issuer_account=account, tags=tags),
            subject=user.public_key,
            signer=self._key(label),
            name=name,
            expires=expires,
        )
        return creds.render(jwt, user)

    def sign_operator(self, signing: KeyPair) -> str:
        """The operator's JWT with this signing key and no other. Raises SetupError."""
        operator = claims.read(self._operator, claims.Operator)
        return claims.encode(
            msgspec.structs.replace(operator, signing_keys=(signing.public_key,)),
            subject=self._operator.sub,
            signer=self._load_key("operator", {self._operator.sub}),
            name=self._operator.name,
        )

    def sign_account(
        self, name: str, account: claims.Account, issued: int, signer: KeyPair | None = None
    ) -> str:
        """A JWT of the account sys, edge or mesh (`issued` in unix seconds). Raises SetupError."""
        document = self._accounts[name]
        return claims.encode(
            account,
            subject=document.sub,
            signer=signer or self._key(plant.OPERATOR_KEY),
            name=document.name,
            issued=issued,
        )

    def tenant_jwt(
        self,
        public_key: str,
        tenant: str,
        *,
        name: str = "",
        expires: int | None = None,
        scope: str = "",
        signer: str = "",
    ) -> str:
        """A user JWT for a tenant's program that made its own key pair.

        `public_key` is the program's, `name` is for people (the tenant's id by default),
        `expires` in unix seconds, `scope` one that was pushed with :meth:`edge_claims`, `signer`
        the public key of a tenants' signing key (the newest by default). Raises SetupError.
        """
        if not is_public_key(public_key, Kind.USER):
            raise SetupError(f"{public_key!r} is not a user's public key", hint="it starts with U")
        if not subjects.is_tenant(tenant):
            # The id becomes a part of permissions: a dot or a wildcard in it would open others.
            raise SetupError(
                f"{tenant!r} is not a tenant id",
                hint="1 to 63 of a-z, 0-9 and inner '-'",
            )
        return claims.encode(
            claims.User(issuer_account=self.edge_public_key, tags=(creds.tenant_tag(tenant),)),
            subject=public_key,
            signer=self._tenant_signer(signer or self.tenant_key, scope),
            name=name or tenant,
            expires=expires,
        )

    def tenant_creds(self, tenant: str, *, name: str = "", expires: int | None = None) -> str:
        """Credentials with a new key pair for a tenant's program; see :meth:`tenant_jwt`."""
        user = KeyPair.generate(Kind.USER)
        jwt = self.tenant_jwt(user.public_key, tenant, name=name, expires=expires)
        return creds.render(jwt, user)

    def edge_claims(
        self, revocations: Mapping[str, int], scopes: Mapping[str, int] = MappingProxyType({})
    ) -> str:
        """The account JWT of EDGE with exactly these revocations, for the control plane to push.

        Maps a user's public key to unix seconds: what was issued until then is void. `scopes` maps
        names to the subscriptions that each connection may have, 0 for any number; credentials of
        a scope that is left out are void. Each JWT is issued at least a second after the one
        before: nodes keep the one that is issued later.
        """
        edge = claims.read(self._accounts["edge"], claims.Account)
        keys = tuple(
            accounts.tenant_scope(self._tenant_signer(key.key, name).public_key, subscriptions)
            for key in self.live_keys(plant.TENANT_KEY)
            for name, subscriptions in sorted(scopes.items())
        )
        self._edge_issued = max(int(time.time()), self._edge_issued + 1)
        account = msgspec.structs.replace(
            edge, revocations=dict(revocations), signing_keys=(*edge.signing_keys, *keys)
        )
        return self.sign_account("edge", account, self._edge_issued)

    def validate_edge(self, jwt: str) -> claims.Account:
        """What a JWT says of EDGE, if our operator signed it; else SetupError."""
        return self.validate("edge", jwt)

    def validate(self, account: str, jwt: str) -> claims.Account:
        """What a JWT says of an account (sys, edge, mesh), if our operator signed it.

        To be called before a push: nats-server itself takes any signature there. Raises SetupError.
        """
        decoded = claims.decode(jwt)
        operator = claims.read(self._operator, claims.Operator)
        if decoded.iss not in {self._operator.sub, *operator.signing_keys}:
            raise SetupError("the account JWT is not signed by our operator", hint="do not push it")
        if decoded.sub != self._accounts[account].sub:
            raise SetupError(
                f"the account JWT is not that of {account.upper()}", hint="do not push it"
            )
        return claims.read(decoded, claims.Account)

    def context_keys(self) -> list[tuple[str, bytes]]:
        """Key id and 32-byte Ed25519 seed of each context key, newest last. Raises SetupError."""
        return [(kid, plant.read_context_key(self.path, kid)) for kid in self._manifest.context]

    def context_seed(self, kid: str) -> bytes:
        """The 32-byte seed of a context key. Raises SetupError where it is not here."""
        return plant.read_context_key(self.path, kid)

    def verify_keys(self) -> list[VerifyKey]:
        """The certified records of the context keys, newest last. Raises SetupError."""
        kids = folder.read_manifest(self.path).context
        return [plant.read_verify_key(self.path, kid) for kid in kids]

    def certify(self, key: VerifyKey) -> VerifyKey:
        """Sign a record of a context key with the root and keep it. Raises SetupError."""
        certified = certify(key, self._key(plant.ROOT_KEY))
        plant.write_verify_key(self.path, certified)
        return certified

    def add_context_key(self) -> str:
        """Make a new context key, the newest from now on, and return its id. Raises SetupError.

        It is only made known: contexts are signed with it once it is active.
        """
        self._key(plant.ROOT_KEY)  # before anything is written
        manifest = folder.read_manifest(self.path)
        kid = plant.add_context_key(self.path)
        self.certify(plant.new_verify_key(self.path, kid))
        self.write_manifest(msgspec.structs.replace(manifest, context=(*manifest.context, kid)))
        return kid

    def write_manifest(self, manifest: plant.Manifest) -> None:
        """Take over another manifest, in the file too. Raises SetupError."""
        plant.write_manifest(self.path, manifest)
        self._manifest = manifest

    def write_server_conf(self, options: ServerOptions) -> Path:
        """Render `server.conf` anew and return its path. Raises SetupError."""
        path = self.path / "server.conf"
        files.write(path, render_server_conf(options), secret=False)
        return path

    def _key(self, label: str) -> KeyPair:
        """The key that signs for a label now."""
        if label in plant.SIGNING:
            newest = self.live_keys(label)[-1]
            return self._load_key(newest.file, {newest.key})
        if label == plant.ROOT_KEY:
            return self._load_key(label, {self.context_root})
        if later := self._manifest.signing.get(label):
            return self._load_key(later[-1].file, {later[-1].key})
        return self._load_key(label, set(claims.read(self._operator, claims.Operator).signing_keys))

    def _load_key(self, file: str, expected: set[str]) -> KeyPair:
        if file not in self._keys:
            path = self.path / "keys" / f"{file}.nk"
            try:
                key = KeyPair.from_seed(files.read(path))
            except SetupError as error:
                raise SetupError(f"{path}: {error.message}", hint=error.hint) from error
            if key.public_key not in expected:
                raise SetupError(f"{path} is the key of another home", hint=folder.BACKUP)
            self._keys[file] = key
        return self._keys[file]

    def _tenant_signer(self, public_key: str, scope: str) -> KeyPair:
        """A tenants' signing key, or what is made out of it for a scope.

        Every replica makes the same, and there is none to store.
        """
        place = public_key, scope
        if place not in self._scope_keys:
            key = next(
                self._load_key(each.file, {each.key})
                for each in self.live_keys(plant.TENANT_KEY)
                if each.key == public_key
            )
            self._scope_keys[place] = key.derive(scope) if scope else key
        return self._scope_keys[place]


def _checked(role: str, services: Iterable[str]) -> list[str]:
    names = sorted(set(services))
    if role != SERVICE:
        if names:
            raise SetupError(f"the role {role} is not for services", hint="leave them out")
        return names
    if not names:
        raise SetupError(
            "credentials of the role service are for services that are named",
            hint="name each that the process runs: --service orders --service ledger",
        )
    for name in names:
        # It becomes a part of permissions: a dot or a wildcard in it would open others.
        if not subjects.is_name(name):
            raise SetupError(
                f"{name[:80]!r} is not a valid name of a service",
                hint="1 to 63 of a-z, 0-9 and inner '_', starting with a letter",
            )
    return names
