"""Time of one forward and backward pass of the contrastive losses, for a large batch and queue.

    OMP_NUM_THREADS=1 python benchmarks/contrastive.py --json contrastive.json

PaCo and GPaCo are beside "masked": PaCo as the original writes it, with a mask and a log-probability for every pair.
A row's figure is the median of its rounds, of CPU time or, on a GPU, of the clock.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from rebalance.losses.balanced_contrastive import balanced_contrastive_loss
from rebalance.losses.paco import paco_log_prior, paco_loss


def masked(
    logits: Tensor, views: Tensor, targets: Tensor, keys: Tensor, key_targets: Tensor, log_prior: Tensor
) -> Tensor:
    """PaCo by masks over all pairs, alpha 0.05, T 0.2."""
    rows = torch.cat([views[:, 0], views[:, 1], keys])
    labels = torch.cat([targets, targets, key_targets])
    others = torch.ones(len(targets), len(rows), device=rows.device).fill_diagonal_(0)
    positive = (targets[:, None] == labels).float() * others
    z = torch.cat([logits + log_prior.float(), views[:, 0] @ rows.T / 0.2], 1)
    z = z - z.amax(1, keepdim=True).detach()
    denominator = (z.exp() * torch.cat([torch.ones_like(logits), others], 1)).sum(1, keepdim=True)
    weight = torch.cat([F.one_hot(targets, logits.shape[1]).float(), 0.05 * positive], 1)
    return -((weight * (z - (denominator + 1e-12).log())).sum(1) / weight.sum(1)).mean()


def losses_of(args: argparse.Namespace) -> dict[str, Callable[[], Tensor]]:
    """The measured losses, on the same embeddings."""
    torch.manual_seed(0)
    device, n, classes = args.device, args.batch_size, args.classes
    logits = torch.randn(n, 2, classes, device=device, requires_grad=True)
    views = F.normalize(torch.randn(n, 2, args.dim, device=device), dim=2).requires_grad_()
    keys = F.normalize(torch.randn(args.queue, args.dim, device=device), dim=1)
    targets, key_targets = (torch.randint(classes, (size,), device=device) for size in (n, args.queue))
    prototypes = F.normalize(torch.randn(classes, args.dim, device=device), dim=1).requires_grad_()
    prior = paco_log_prior(range(classes, 0, -1)).to(device)
    return {
        "PaCo": lambda: paco_loss(logits[:, 0], views, targets, keys, key_targets, log_prior=prior),
        "masked": lambda: masked(logits[:, 0], views, targets, keys, key_targets, prior),
        "GPaCo": lambda: paco_loss(logits, views, targets, keys, key_targets, log_prior=prior),
        "BCL": lambda: balanced_contrastive_loss(views, targets, prototypes),
    }


def milliseconds(loss: Callable[[], Tensor], device: torch.device) -> float:
    clock = time.process_time if device.type == "cpu" else time.perf_counter
    start = clock()
    loss().backward()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return 1000 * (clock() - start)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch-size", type=int, default=1024)
    parser.add_argument("--dim", type=int, default=128)
    parser.add_argument("--queue", type=int, default=8192)
    parser.add_argument("--classes", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--device", type=torch.device, default=torch.device("cpu"))
    parser.add_argument("--json", type=Path, help="file for the results")
    args = parser.parse_args()

    losses = losses_of(args)
    print(f"{platform.machine()}, {args.device}, {torch.get_num_threads()} threads, torch {torch.__version__}")
    print(f"batch {args.batch_size}, dim {args.dim}, queue {args.queue}, {args.classes} classes\n")
    torch.testing.assert_close(losses["PaCo"](), losses["masked"]())
    rows = []
    for name, loss in losses.items():
        milliseconds(loss, args.device)
        times = [milliseconds(loss, args.device) for _ in range(args.rounds)]
        rows.append({"loss": name, "milliseconds": statistics.median(times)})
        print(f"{name:10}{rows[-1]['milliseconds']:10.1f} ms", flush=True)
    if args.json:
        settings = {key: getattr(args, key) for key in ("batch_size", "dim", "queue", "classes", "rounds")}
        settings |= {"device": str(args.device), "threads": torch.get_num_threads(), "torch": torch.__version__}
        args.json.write_text(json.dumps({"settings": settings, "rows": rows}, indent=2) + "\n")


if __name__ == "__main__":
    main()
