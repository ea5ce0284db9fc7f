"""Golden activations and logits of Swin-T, from plain PyTorch in float64.

    python tests/golden/swin.py     (from the repository's root; made with torch 2.13.0, numpy 2.4)

writes swin.npz from random weights under torchvision's names. Attention is computed position by position: each window
is a list of pairs of coordinates, and two positions of it attend if they were neighbours before the roll.
"""

import pathlib

import numpy as np
import torch
import torch.nn.functional as F
from random_tensors import summary, uniform
from vit import CLASSES, dense, random_weight

HERE = pathlib.Path(__file__).parent
WINDOW = 7
SIZES = ((224, 224), (97, 130))


def norm(name: str, x: torch.Tensor) -> torch.Tensor:
    c = x.shape[-1]
    return F.layer_norm(x, (c,), random_weight(f"{name}.weight", c), random_weight(f"{name}.bias", c), eps=1e-5)


def attention(name: str, x: torch.Tensor, heads: int, shifted: bool) -> torch.Tensor:
    b, h, w, c = x.shape
    x = F.pad(x, (0, 0, 0, -w % WINDOW, 0, -h % WINDOW))
    height, width = x.shape[1:3]
    dy, dx = (WINDOW // 2 if shifted and side > WINDOW else 0 for side in (height, width))
    qkv = dense(random_weight, f"{name}.qkv", x, 3 * c).reshape(b, height, width, 3, heads, c // heads)
    table = random_weight(f"{name}.relative_position_bias_table", (2 * WINDOW - 1) ** 2, heads)
    inner_y, inner_x = (t.flatten() for t in torch.meshgrid(torch.arange(WINDOW), torch.arange(WINDOW), indexing="ij"))
    delta_y, delta_x = (t[:, None] - t[None] + WINDOW - 1 for t in (inner_y, inner_x))
    bias = table[delta_y * (2 * WINDOW - 1) + delta_x].permute(2, 0, 1)
    out = torch.zeros_like(x)
    for top in range(0, height, WINDOW):
        for left in range(0, width, WINDOW):
            y, z = top + inner_y + dy, left + inner_x + dx
            over = (y >= height).long() * 2 + (z >= width).long()
            y, z = y % height, z % width
            q, k, v = (t.transpose(1, 2) for t in qkv[:, y, z].unbind(2))  # [b, heads, n, d]
            products = q @ k.transpose(-2, -1) / (c // heads) ** 0.5 + bias
            products = products - 100.0 * (over[:, None] != over[None])
            out[:, y, z] = (products.softmax(-1) @ v).transpose(1, 2).reshape(b, -1, c)
    return dense(random_weight, f"{name}.proj", out, c)[:, :h, :w]


def merged(name: str, x: torch.Tensor) -> torch.Tensor:
    x = F.pad(x, (0, 0, 0, x.shape[2] % 2, 0, x.shape[1] % 2))
    x = torch.cat([x[:, 0::2, 0::2], x[:, 1::2, 0::2], x[:, 0::2, 1::2], x[:, 1::2, 1::2]], -1)
    c = x.shape[-1]
    return F.linear(norm(f"{name}.norm", x), random_weight(f"{name}.reduction.weight", c // 2, c))


def swin_t(images: torch.Tensor) -> dict[str, torch.Tensor]:
    weights = random_weight("features.0.0.weight", 96, 3, 4, 4), random_weight("features.0.0.bias", 96)
    seen = {"features.0.0": F.conv2d(images, *weights, stride=4).permute(0, 2, 3, 1)}
    seen["features.0.2"] = x = norm("features.0.2", seen["features.0.0"])
    for part, (depth, heads) in enumerate(zip((2, 2, 6, 2), (3, 6, 12, 24), strict=True)):
        if part:
            seen[f"features.{2 * part}"] = x = merged(f"features.{2 * part}", x)
        for i in range(depth):
            name = f"features.{2 * part + 1}.{i}"
            x = x + attention(f"{name}.attn", norm(f"{name}.norm1", x), heads, i % 2 == 1)
            y = F.gelu(dense(random_weight, f"{name}.mlp.0", norm(f"{name}.norm2", x), 4 * x.shape[-1]))
            seen[name] = x = x + dense(random_weight, f"{name}.mlp.3", y, x.shape[-1])
    seen["norm"] = x = norm("norm", x)
    seen["logits"] = dense(random_weight, "head", x.mean((1, 2)), CLASSES)
    return seen


if __name__ == "__main__":
    golden = {}
    with torch.no_grad():
        for height, width in SIZES:
            images = torch.from_numpy(uniform("images", (1, height, width, 3))).permute(0, 3, 1, 2).double()
            for key, x in swin_t(images).items():
                array = x.contiguous().numpy()
                golden[f"{height}x{width}/{key}"] = array.astype(np.float32) if key == "logits" else summary(array)
    np.savez_compressed(HERE / "swin.npz", **golden)
