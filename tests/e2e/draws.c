/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Draws random numbers without a pause, each behind the generation id of the machine (vmm/generation.h) at that
 * time: lines "GENERATION NUMBER", both in hexadecimal digits.
 */
#include <fcntl.h>
#include <inttypes.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/random.h>

#define GENERATION_AT 0xef000

int main(void)
{
	int fd = open("/dev/mem", O_RDONLY);
	const volatile uint64_t *generation = mmap(NULL, 4096, PROT_READ, MAP_SHARED, fd, GENERATION_AT);
	uint64_t number[2];

	if (generation == MAP_FAILED)
		return 1;
	for (;;) {
		uint64_t now = generation[0];

		if (getrandom(number, sizeof(number), 0) != sizeof(number))
			return 2;
		(void)printf("%016" PRIx64 " %016" PRIx64 "%016" PRIx64 "\n", now, number[0], number[1]);
		(void)fflush(stdout);
	}
}
