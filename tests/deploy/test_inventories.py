"""The inventories that are there to be copied: their vault opens, and who is asked follows from who is named."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest
import yaml

from tests.deploy.deploy_kit import ROOT, Ansible

INVENTORIES = ROOT / "ansible/inventories"
FAKE = INVENTORIES / "vault.example.password"
ASKED = """
- hosts: monitors
  connection: local
  tasks:
    - ansible.builtin.include_role: {name: prometheus, tasks_from: preflight, public: true}
    - ansible.builtin.copy: {dest: "{{ out }}", content: "{{ prometheus_configuration | to_json }}", mode: "0600"}
      vars: {role_path: "{{ role }}"}
"""


@pytest.fixture(params=["one", "three"])
def copied(request: pytest.FixtureRequest, ansible: Ansible, tmp_path: Path) -> Path:
    """An inventory copied as docs/deploy.md says, with its vault under a password of one's own."""
    folder = tmp_path / str(request.param)
    shutil.copytree(INVENTORIES / folder.name, folder)
    vault = shutil.copy(INVENTORIES / "vault.example.yml", folder / "group_vars/all/vault.yml")
    (tmp_path / "password").write_text("my own\n")
    new = f"--new-vault-password-file={tmp_path / 'password'}"
    ansible.run("ansible-vault", "rekey", f"--vault-password-file={FAKE}", new, str(vault))
    return folder


def test_vault(ansible: Ansible, copied: Path, tmp_path: Path) -> None:
    """What is stored is ciphertext; it holds each secret the inventory names; after a rekey the fake opens nothing."""
    example = INVENTORIES / "vault.example.yml"
    assert re.fullmatch(r"\$ANSIBLE_VAULT;1\.1;AES256\n[0-9a-f\n]+", example.read_text("utf-8"))
    held = yaml.safe_load(ansible.run("ansible-vault", "view", f"--vault-password-file={FAKE}", str(example)))
    vault = copied / "group_vars/all/vault.yml"
    texts = [path.read_text("utf-8") for path in copied.rglob("*.yml") if path != vault]
    named = set(re.findall(r"\bvault_\w+", "".join(texts)))
    assert named <= held.keys(), f"`ansible-vault edit` the example: it lacks {named - held.keys()}"
    command = ("ansible-vault", "view", str(vault))
    assert yaml.safe_load(ansible.run(*command, f"--vault-password-file={tmp_path / 'password'}")) == held
    assert "Decryption failed" in ansible.run(*command, f"--vault-password-file={FAKE}", check=False)


def test_no_secret_is_left_over(ansible: Ansible) -> None:
    """The example holds nothing that no inventory names."""
    example = str(INVENTORIES / "vault.example.yml")
    held = yaml.safe_load(ansible.run("ansible-vault", "view", f"--vault-password-file={FAKE}", example))
    texts = [path.read_text("utf-8") for path in INVENTORIES.glob("*/**/*.yml")]
    assert held.keys() == set(re.findall(r"\bvault_\w+", "".join(texts)))


def test_who_is_asked(ansible: Ansible, copied: Path, tmp_path: Path) -> None:
    """Each exporter of each host, with the token where it is ours; one that cannot be reached is named."""
    book, out = tmp_path / "book.yml", tmp_path / "out.json"
    book.write_text(ASKED)
    (tmp_path / "group_vars").symlink_to(ROOT / "ansible/group_vars")  # what every playbook there relies on
    words = ("ansible-playbook", "-i", str(copied / "hosts.yml"), f"--vault-password-file={tmp_path / 'password'}")
    more = (str(book), "-e", f"out={out} role={ROOT / 'ansible/roles/prometheus'}")
    ansible.run(*words, *more)
    found = json.loads(out.read_text("utf-8"))
    asked = {each["job_name"]: each["static_configs"][0]["targets"] for each in found["scrape_configs"]}
    machines = ["10.0.0.11:9100", "10.0.0.12:9100"] if copied.name == "three" else []
    assert asked == {
        "bitloot-ops": ["127.0.0.1:9401"],
        "node": [*machines, "127.0.0.1:9100"],
        "redis": ["127.0.0.1:9121"],
        "postgres": ["127.0.0.1:9187"],
    }
    tokens = {each["job_name"] for each in found["scrape_configs"] if "authorization" in each}
    assert tokens == {"bitloot-ops"}
    generated = yaml.safe_load((ROOT / "prometheus/prometheus.yml").read_text("utf-8"))
    assert {name: found[name] for name in ("global", "rule_files", "alerting")} == {
        name: generated[name] for name in ("global", "rule_files", "alerting")
    }
    if copied.name == "three":
        (copied / "group_vars/workers/main.yml").write_text("bitloot_ops_exporters: [{name: main}]\n")
        said = re.sub(r"\s+", " ", ansible.run(*words, *more, check=False))
        assert "cannot ask jobs1 bitloot-ops 127.0.0.1:9401" in said
        assert "jobs2 node 127.0.0.1:9100" in said
