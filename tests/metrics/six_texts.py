"""Six texts, two captions and four answers, said after one shot and after none."""

import torch

from genbench.core.metric import Evidence, TextEvidence


def six_texts(**changes) -> Evidence:
    """Evidence with known shares."""
    values = {
        "shots": (1, 0),
        "right": torch.tensor([[1, 0, 1, 1, 1, 0], [0, 0, 1, 0, 0, 0]], dtype=torch.bool),
        "question": torch.tensor([0, 0, 1, 1, 1, 1], dtype=torch.bool),
        "named": torch.tensor([[0, 2], [1, -1], [3, -1], [-1, 1], [-1, 1], [2, -1]]),
        "read": torch.tensor(
            [
                [[0, 2], [0, -1], [3, 1], [-1, 1], [-1, 1], [-1, -1]],
                [[0, 0], [1, -1], [-1, -1], [0, 1], [-1, -1], [-1, -1]],
            ]
        ),
        "factors": ("shape", "colour"),
        "nats": torch.tensor([[-1.0, -2, -1, -1, -1, -3], [-4.0, -4, -2, -2, -2, -4]], dtype=torch.float64),
        "num_tokens": torch.tensor([6, 4, 2, 2, 2, 2]),
    }
    return Evidence(texts=TextEvidence(**{**values, **changes}))
