"""Joins the ranks of a run without opening more to the network than they need. Imports torch.

torch's own way to start, `env://`, opens a store that listens on every interface and asks nobody for a password, for a
single process too. Here one process has a store in its memory. Several meet at a store that listens only on the
address in MASTER_ADDR, and exchange tensors over loopback, or between machines over the interface that the user named.
Between machines none of that is encrypted or authenticated: the README says what a firewall must do.
"""

import os
import socket
import sys
from datetime import timedelta

import torch
import torch.distributed as dist
from torch.distributed import HashStore, Store, TCPStore  # type: ignore[attr-defined]

from trainer.failure import config_invalid

INTERFACES = {"cpu": "GLOO_SOCKET_IFNAME", "cuda": "NCCL_SOCKET_IFNAME"}  # by the kind of device
LOOPBACK = "lo" if sys.platform == "linux" else "lo0"
TIMEOUT = timedelta(minutes=30)  # a rank may wait for another to write a large checkpoint


def join(device: torch.device) -> None:
    """Join the other ranks by RANK, WORLD_SIZE and torchrun's other variables.

    Raises Failure for several machines without a named interface.
    """
    rank, num_processes = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    _choose_interfaces(device.type, num_processes)
    dist.init_process_group(
        "nccl" if device.type == "cuda" else "gloo",
        store=_store(rank, num_processes),
        rank=rank,
        world_size=num_processes,
        timeout=TIMEOUT,
        device_id=device if device.type == "cuda" and num_processes > 1 else None,  # as DeepSpeed does
    )


def _choose_interfaces(kind: str, num_processes: int) -> None:
    if num_processes == int(os.environ.get("LOCAL_WORLD_SIZE", num_processes)):
        for variable in INTERFACES.values():
            os.environ.setdefault(variable, LOOPBACK)
    elif not os.environ.get(INTERFACES[kind]):
        raise config_invalid("num_processes", "interface", value=num_processes, variable=INTERFACES[kind])


def _store(rank: int, num_processes: int) -> Store:
    """Where the ranks find each other: in memory for one, else at MASTER_ADDR, which the first rank listens on."""
    if num_processes == 1:
        return HashStore()
    address, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    # torchrun brings a store of its own.
    is_host = rank == 0 and os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True"
    listener = _listen(address, port) if is_host else None
    return TCPStore(address, port, num_processes, is_host, TIMEOUT, master_listen_fd=listener)


def _listen(address: str, port: int) -> int:
    """The descriptor of a socket that listens on one address only; the store closes it."""
    family = socket.getaddrinfo(address, port, type=socket.SOCK_STREAM)[0][0]
    return socket.create_server((address, port), family=family).detach()
