/* SPDX-License-Identifier: Apache-2.0 */
/* Records of a VM's log: a file that a kill or a broken disk has left. */
#include "life/output.h"
#include "tests/fuzz/check.h"

#include <stdint.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	struct output_record r;
	size_t at = 0;
	long n;

	while ((n = output_parse(data + at, len - at, &r)) > 0) {
		want((size_t)n <= len - at && r.len > 0 && r.len <= OUTPUT_RECORD_MAX);
		want(r.data >= data + at && r.data + r.len == data + at + n);
		at += (size_t)n;
	}
	want(n == 0 || n == -1);
	return 0;
}
