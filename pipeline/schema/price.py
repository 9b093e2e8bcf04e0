"""The types of `conf/price`: what the price of collapse is scaled to, and what others report."""

from __future__ import annotations

from dataclasses import dataclass, field

from omegaconf import MISSING


@dataclass
class DeviceConfig:
    """A device to which a price is scaled."""

    name: str = MISSING
    flops_per_second: float = MISSING  # published peak, dense bf16 (without sparsity)
    memory_gb: float = MISSING  # 1 GB = 1e9 bytes; says how many hold the weights
    usd_per_hour: float = MISSING  # a typical price of renting one
    peak_source: str = MISSING
    price_source: str = MISSING
    price_date: str = MISSING  # when the price was seen: YYYY-MM


@dataclass
class PublishedPrice:
    """What somebody else reports for stripping a model."""

    what: str = MISSING
    cost: str = MISSING
    result: str = MISSING
    source: str = MISSING


@dataclass
class PriceConfig:
    """What the price of collapse is scaled to. Nothing that is scaled is measured."""

    device: str = "h100_sxm"  # a name in `devices`
    mfu: float = 0.4  # assumed share of the device's peak that the counted FLOPs reach, in (0, 1]
    parameters: list[float] = field(default_factory=list)  # further sizes of model, in parameters
    devices: dict[str, DeviceConfig] = field(default_factory=dict)
    published: list[PublishedPrice] = field(default_factory=list)
