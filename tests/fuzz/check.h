/* SPDX-License-Identifier: Apache-2.0 */
/* What fuzz targets check with. */
#ifndef TESTS_FUZZ_CHECK_H
#define TESTS_FUZZ_CHECK_H

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

/* Ends the run, which libFuzzer reports with the input, unless @what holds. */
#define want(what) do { \
	if (!(what)) { \
		(void)fprintf(stderr, "not so: %s\n", #what); \
		abort(); \
	} \
} while (0)

/* The lowest free number: grows when a descriptor was left open. */
static inline int free_descriptor(void)
{
	int fd = open("/dev/null", O_RDONLY | O_CLOEXEC);

	if (fd < 0 || close(fd) < 0)
		abort();
	return fd;
}

#endif /* TESTS_FUZZ_CHECK_H */
