/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A bzImage is [boot sector + setup code][protected-mode code]; the latter holds
 * the compressed ELF kernel, whose place the header tells.  The last four bytes
 * of that payload are the unpacked size, for every compression: gzip's own
 * trailer, or appended by the kernel's build.
 */
#include "vmm/load.h"

#include "abi/linux_boot.h"
#include "base/checked.h"
#include "os/err.h"

#include <bzlib.h>
#include <errno.h>
#include <lz4.h>
#include <lzma.h>
#include <stdlib.h>
#include <string.h>
#include <zlib.h>
#include <zstd.h>

#define HEADER_OFFSET 0x1f1
#define LZ4_LEGACY_MAGIC 0x184c2102u

/* Bytes an unpacker may take for its dictionary; kernels are packed with at most 128 MiB. */
#define DICTIONARY_MAX (256ull << 20)

struct span {
	const uint8_t *data;
	size_t size;	/* bytes */
};

static uint32_t le32_at(const uint8_t *p)
{
	return (uint32_t)p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
}

bool bzimage_is(const uint8_t *image, size_t size)
{
	return size >= 0x206 && image[0x1fe] == 0x55 && image[0x1ff] == 0xaa &&
	       le32_at(image + 0x202) == LINUX_HEADER_MAGIC;
}

/* Each unpacker fills exactly @out_size bytes and returns true, or false when the data
 * is corrupt or has another size. */
static bool unpack_gzip(struct span in, uint8_t *out, size_t out_size)
{
	/* inflate() reads through a pointer that its interface does not call const. */
	z_stream z = { .next_in = (Bytef *)(uintptr_t)in.data, .avail_in = (uInt)in.size,
		       .next_out = out, .avail_out = (uInt)out_size };
	bool ok;

	if (inflateInit2(&z, 16 + MAX_WBITS) != Z_OK)	/* 16: a gzip header, not zlib's */
		return false;
	ok = inflate(&z, Z_FINISH) == Z_STREAM_END && z.total_out == out_size;
	(void)inflateEnd(&z);
	return ok;
}

static bool unpack_bzip2(struct span in, uint8_t *out, size_t out_size)
{
	bz_stream z = { .next_in = (char *)(uintptr_t)in.data, .avail_in = (unsigned)in.size,
			.next_out = (char *)out, .avail_out = (unsigned)out_size };
	bool ok;

	if (BZ2_bzDecompressInit(&z, 0, 0) != BZ_OK)
		return false;
	ok = BZ2_bzDecompress(&z) == BZ_STREAM_END && z.avail_out == 0;
	(void)BZ2_bzDecompressEnd(&z);
	return ok;
}

static bool run_lzma(lzma_stream *z, struct span in, uint8_t *out, size_t out_size)
{
	lzma_ret r;

	z->next_in = in.data;
	z->avail_in = in.size;
	z->next_out = out;
	z->avail_out = out_size;
	do
		r = lzma_code(z, LZMA_RUN);
	while (r == LZMA_OK && z->avail_out > 0 && z->avail_in > 0);
	lzma_end(z);
	/* .lzma made by a pipe has no size in its header: it ends when we have enough. */
	return (r == LZMA_STREAM_END || r == LZMA_OK) && z->avail_out == 0;
}

static bool unpack_xz(struct span in, uint8_t *out, size_t out_size)
{
	lzma_stream z = LZMA_STREAM_INIT;

	return lzma_stream_decoder(&z, DICTIONARY_MAX, 0) == LZMA_OK && run_lzma(&z, in, out, out_size);
}

static bool unpack_lzma(struct span in, uint8_t *out, size_t out_size)
{
	lzma_stream z = LZMA_STREAM_INIT;

	return lzma_alone_decoder(&z, DICTIONARY_MAX) == LZMA_OK && run_lzma(&z, in, out, out_size);
}

/* Legacy frame: magic, then blocks of [le32 packed size][data], 8 MiB unpacked each. */
static bool unpack_lz4(struct span in, uint8_t *out, size_t out_size)
{
	size_t at = 4, done = 0;

	while (done < out_size) {
		size_t room = out_size - done < (8u << 20) ? out_size - done : 8u << 20;
		uint32_t packed;
		int n;

		if (!range_ok(at, 4, in.size))
			return false;
		packed = le32_at(in.data + at);
		at += 4;
		if (packed == LZ4_LEGACY_MAGIC)	/* another frame follows */
			continue;
		if (packed > INT32_MAX || !range_ok(at, packed, in.size))
			return false;
		n = LZ4_decompress_safe((const char *)in.data + at, (char *)out + done,
					(int)packed, (int)room);
		if (n <= 0)
			return false;
		at += packed;
		done += (size_t)n;
	}
	return true;
}

static bool unpack_zstd(struct span in, uint8_t *out, size_t out_size)
{
	ZSTD_inBuffer src = { .src = in.data, .size = in.size };
	ZSTD_outBuffer dst = { .dst = out, .size = out_size };
	ZSTD_DStream *z = ZSTD_createDStream();
	size_t r = 1;

	if (!z)
		return false;
	/* The library's own limit of 128 MiB for the window is what kernels use at most. */
	while (src.pos < src.size) {
		size_t before = src.pos + dst.pos;

		r = ZSTD_decompressStream(z, &dst, &src);
		if (r == 0 || ZSTD_isError(r) || src.pos + dst.pos == before)
			break;
	}
	(void)ZSTD_freeDStream(z);
	return r == 0 && dst.pos == out_size;
}

static const struct {
	const char *name;
	uint8_t magic[6];
	unsigned magic_size;
	bool (*unpack)(struct span in, uint8_t *out, size_t out_size);
} formats[] = {
	{ "gzip", { 0x1f, 0x8b }, 2, unpack_gzip },
	{ "XZ", { 0xfd, '7', 'z', 'X', 'Z', 0 }, 6, unpack_xz },
	{ "LZ4", { 0x02, 0x21, 0x4c, 0x18 }, 4, unpack_lz4 },
	{ "Zstandard", { 0x28, 0xb5, 0x2f, 0xfd }, 4, unpack_zstd },
	{ "bzip2", { 'B', 'Z', 'h' }, 3, unpack_bzip2 },
	{ "LZMA", { 0x5d, 0, 0 }, 3, unpack_lzma },
};

/* Finds the compressed kernel inside the file. */
static int find_payload(const uint8_t *image, size_t size, struct span *ret, struct err *err)
{
	struct linux_setup_header h;
	uint64_t start;

	if (size < HEADER_OFFSET + sizeof(h))
		return err_set(err, -ENOEXEC, "the kernel file is truncated");
	memcpy(&h, image + HEADER_OFFSET, sizeof(h));
	if (h.version < 0x20c)
		return err_set(err, -ENOEXEC,
			       "the kernel is too old (boot protocol %u.%02u, 2.12 is needed)",
			       h.version >> 8, h.version & 0xff);
	if (!(h.xloadflags & LINUX_XLF_KERNEL_64))
		return err_set(err, -ENOEXEC, "the kernel is a 32-bit one; roux runs 64-bit kernels");
	start = ((h.setup_sects ? h.setup_sects : 4) + 1) * 512ull + h.payload_offset;
	if (h.payload_length < 8 || !range_ok(start, h.payload_length, size))
		return err_set(err, -ENOEXEC, "the kernel file is truncated");
	*ret = (struct span){ .data = image + start, .size = h.payload_length };
	return 0;
}

int bzimage_unpack(const uint8_t *image, size_t size, uint8_t **ret_elf, size_t *ret_size,
		   struct err *err)
{
	struct span in;
	size_t i, out_size;
	uint8_t *out;

	if (!bzimage_is(image, size))
		return err_set(err, -ENOEXEC, "not a bzImage");
	if (find_payload(image, size, &in, err) < 0)
		return -ENOEXEC;
	if (elf_is(in.data, in.size))
		return err_set(err, -ENOEXEC, "the bzImage is uncompressed; use its vmlinux instead");
	for (i = 0; i < ARRAY_SIZE(formats); i++)
		if (memcmp(in.data, formats[i].magic, formats[i].magic_size) == 0)
			break;
	if (i == ARRAY_SIZE(formats))
		return err_set(err, -ENOEXEC, "the kernel is compressed in a way roux does not know "
			       "(bytes %02x %02x %02x %02x)", in.data[0], in.data[1], in.data[2],
			       in.data[3]);
	out_size = le32_at(in.data + in.size - 4);
	if (out_size == 0 || out_size > KERNEL_SIZE_MAX)
		return err_set(err, -ENOEXEC, "the kernel claims to unpack to %zu bytes", out_size);
	out = malloc(out_size);
	if (!out)
		return err_set(err, -ENOMEM, "out of host memory unpacking the kernel");
	if (!formats[i].unpack(in, out, out_size)) {
		free(out);
		return err_set(err, -ENOEXEC, "the %s data in the kernel is corrupt", formats[i].name);
	}
	*ret_elf = out;
	*ret_size = out_size;
	return 0;
}
