"""The descriptor of a firmware configuration DMA (QEMU docs/specs/fw_cfg)."""

from trapline.arch.layout import Structure, at, layout, u32, u64


@layout(size=0x10)
class DmaDescriptor(Structure):
    """FWCfgDmaAccess, big-endian (`fw_cfg_dma`)."""

    control: u32 = at(0x0)
    length: u32 = at(0x4)
    address: u64 = at(0x8)
