/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The input is a payload behind one byte: odd wraps it in a valid header, so that
 * the unpackers are reached; even takes it as the whole file.
 */
#include "abi/linux_boot.h"
#include "vmm/load.h"

#include <stdlib.h>
#include <string.h>

#define SETUP (5 * 512)
#define UNPACKED_MAX (1u << 20)	/* larger claims only cost time */

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

static void unpack(const uint8_t *image, size_t size)
{
	uint8_t *elf;
	size_t n;

	if (bzimage_unpack(image, size, &elf, &n, NULL) == 0)
		free(elf);
}

static void unpack_wrapped(const uint8_t *payload, size_t len)
{
	const struct linux_setup_header h = {
		.setup_sects = 4, .boot_flag = LINUX_BOOT_FLAG, .header = LINUX_HEADER_MAGIC,
		.version = 0x20f, .xloadflags = LINUX_XLF_KERNEL_64,
		.payload_length = (uint32_t)len };
	uint8_t *image = calloc(1, SETUP + len);
	uint32_t claim = 0;

	if (!image)
		return;
	memcpy(image + 0x1f1, &h, sizeof(h));
	memcpy(image + SETUP, payload, len);
	if (len >= sizeof(claim))
		memcpy(&claim, payload + len - sizeof(claim), sizeof(claim));
	if (claim <= UNPACKED_MAX)
		unpack(image, SETUP + len);
	free(image);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	if (len == 0)
		return 0;
	if (data[0] & 1)
		unpack_wrapped(data + 1, len - 1);
	else if (len < 4096)
		unpack(data + 1, len - 1);
	return 0;
}
