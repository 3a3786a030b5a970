/* SPDX-License-Identifier: Apache-2.0 */
/* The input is the whole guest memory; every walk must end and stay inside. */
#include "virtio/queue.h"

#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	static _Alignas(4096) uint8_t ram[8192];
	static struct chain c;
	struct mem mem;
	struct queue q = { .mem = &mem, .desc = 0x1000, .avail = 0x1100, .used = 0x1200, .size = 8,
			   .size_max = 8, .event_idx = len & 1, .indirect = true };

	mem_init_borrowed(&mem, ram, 0x1000, sizeof(ram));
	memset(ram, 0, sizeof(ram));
	memcpy(ram, data, len < sizeof(ram) ? len : sizeof(ram));
	if (queue_start(&q) < 0)
		return 0;
	for (int budget = 64; budget-- > 0 && queue_pop(&q, &c) == 1;) {
		for (unsigned i = c.nread; i < c.nread + c.nwrite; i++)
			memset(c.iov[i].iov_base, 0xa5, c.iov[i].iov_len);
		queue_push(&q, &c, c.write_len);
		(void)queue_wants_interrupt(&q);
	}
	return 0;
}
