"""Golden activations, logits and gradients of vision transformers, from plain PyTorch in float64.

    python tests/golden/vit.py     (from the repository's root; made with torch 2.13.0, numpy 2.4)

writes vit.npz from random weights: ViT-B/16 under torchvision's names, with torch's own attention, and ViT-S/16 under
timm's names.
"""

import pathlib
from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from random_tensors import summary, uniform, weight

HERE = pathlib.Path(__file__).parent
CLASSES, DEPTH, GRID, LABEL = 7, 12, 14, 3

Weights = Callable[..., torch.Tensor]  # (name, *shape) -> tensor
Tokens = dict[str, torch.Tensor]  # by layer: [b, n, c], the class token first


def random_weight(name: str, *shape: int) -> torch.Tensor:
    return torch.from_numpy(weight(name, shape)).double()


def norm(w: Weights, name: str, x: torch.Tensor) -> torch.Tensor:
    c = x.shape[-1]
    return F.layer_norm(x, (c,), w(f"{name}.weight", c), w(f"{name}.bias", c), eps=1e-6)


def dense(w: Weights, name: str, x: torch.Tensor, n: int) -> torch.Tensor:
    return F.linear(x, w(f"{name}.weight", n, x.shape[-1]), w(f"{name}.bias", n))


def patches(w: Weights, name: str, x: torch.Tensor, width: int) -> torch.Tensor:
    x = F.conv2d(x, w(f"{name}.weight", width, 3, 16, 16), w(f"{name}.bias", width), stride=16)
    return x.flatten(2).transpose(1, 2)


def torch_attention(w: Weights, name: str, x: torch.Tensor, heads: int) -> torch.Tensor:
    c = x.shape[-1]
    attention = torch.nn.MultiheadAttention(c, heads, batch_first=True).double().eval()
    names = {"in_proj_weight": (3 * c, c), "in_proj_bias": (3 * c,), "out_proj.weight": (c, c), "out_proj.bias": (c,)}
    attention.load_state_dict({key: w(f"{name}.{key}", *shape) for key, shape in names.items()})
    return attention(x, x, x, need_weights=False)[0]


def torchvision_vit(w: Weights, x: torch.Tensor, width: int, heads: int) -> Tokens:
    seen = {"conv_proj": patches(w, "conv_proj", x, width)}
    x = torch.cat([w("class_token", 1, 1, width).expand(x.shape[0], -1, -1), seen["conv_proj"]], 1)
    seen["encoder.dropout"] = x = x + w("encoder.pos_embedding", 1, 1 + GRID**2, width)
    for i in range(DEPTH):
        name = f"encoder.layers.encoder_layer_{i}"
        seen[f"{name}.ln_1"] = y = norm(w, f"{name}.ln_1", x)
        x = x + torch_attention(w, f"{name}.self_attention", y, heads)
        y = F.gelu(dense(w, f"{name}.mlp.0", norm(w, f"{name}.ln_2", x), 4 * width))
        seen[name] = x = x + dense(w, f"{name}.mlp.3", y, width)
    seen["logits"] = dense(w, "heads.head", norm(w, "encoder.ln", x)[:, 0], CLASSES)
    return seen


def timm_attention(w: Weights, name: str, x: torch.Tensor, heads: int) -> torch.Tensor:
    b, n, c = x.shape
    qkv = dense(w, f"{name}.qkv", x, 3 * c).reshape(b, n, 3, heads, c // heads)
    q, k, v = qkv.permute(2, 0, 3, 1, 4)
    shares = (q @ k.transpose(-2, -1) / (c // heads) ** 0.5).softmax(-1)
    return dense(w, f"{name}.proj", (shares @ v).transpose(1, 2).reshape(b, n, c), c)


def timm_vit(w: Weights, x: torch.Tensor, width: int, heads: int) -> Tokens:
    seen = {"patch_embed.proj": patches(w, "patch_embed.proj", x, width)}
    x = torch.cat([w("cls_token", 1, 1, width).expand(x.shape[0], -1, -1), seen["patch_embed.proj"]], 1)
    seen["pos_drop"] = x = x + w("pos_embed", 1, 1 + GRID**2, width)
    for i in range(DEPTH):
        seen[f"blocks.{i}.norm1"] = y = norm(w, f"blocks.{i}.norm1", x).requires_grad_()
        x = x + timm_attention(w, f"blocks.{i}.attn", y, heads)
        y = F.gelu(dense(w, f"blocks.{i}.mlp.fc1", norm(w, f"blocks.{i}.norm2", x), 4 * width))
        seen[f"blocks.{i}"] = x = x + dense(w, f"blocks.{i}.mlp.fc2", y, width)
    seen["logits"] = dense(w, "head", norm(w, "norm", x)[:, 0], CLASSES)
    return seen


def grad_cam(tokens: torch.Tensor, logits: torch.Tensor) -> torch.Tensor:
    """Σ_k α_k A_k of the patches' tokens, α_k the mean gradient over the patches."""
    [gradients] = torch.autograd.grad(logits[:, LABEL].sum(), tokens, retain_graph=True)
    weights = gradients[:, 1:].mean(1, keepdim=True)
    return (weights * tokens[:, 1:]).sum(2).reshape(-1, GRID, GRID)


def main() -> None:
    golden = {}
    for name, network, batch, sizes in (
        ("vit_b_16", torchvision_vit, 1, (768, 12)),
        ("vit_s_16", timm_vit, 2, (384, 6)),
    ):
        images = torch.from_numpy(uniform("images", (batch, 224, 224, 3))).permute(0, 3, 1, 2).double()
        seen = network(random_weight, images, *sizes)
        golden |= {f"{name}/{key}": summary(x.detach().numpy()) for key, x in seen.items() if key != "logits"}
        golden[f"{name}/logits"] = seen["logits"].detach().float().numpy()
        if network is timm_vit:
            raw = grad_cam(seen[f"blocks.{DEPTH - 1}.norm1"], seen["logits"])
            golden[f"{name}/grad_cam"] = raw.detach().float().numpy()
    np.savez_compressed(HERE / "vit.npz", **golden)


if __name__ == "__main__":
    main()
