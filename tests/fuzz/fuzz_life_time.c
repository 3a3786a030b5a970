/* SPDX-License-Identifier: Apache-2.0 */
/* Times, spans and policies that people type: what is taken is within bounds and is taken again as it is written. */
#include "life/record.h"
#include "os/signame.h"
#include "life/when.h"
#include "tests/fuzz/check.h"

#include <signal.h>
#include <stdint.h>
#include <string.h>

#define NOW 1800000000000000000ll

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	char *text = strndup((const char *)data, len), words[WHEN_SIZE * 2];
	int64_t ns, again;
	uint32_t restart, max;

	want(text);
	if (when_parse(text, NOW, &ns)) {
		when_format(ns, words);
		want(strlen(words) < WHEN_SIZE);
		if (ns >= -30000000000000000)	/* years of four digits and not before 1019 */
			want(when_parse(words, NOW, &again) && again == ns);
	}
	if (span_parse(text, &ns)) {
		want(ns >= 0);
		span_format(ns, words, sizeof(words));
		want(words[0]);
	}
	if (vm_restart_parse(text, &restart, &max))
		want(restart <= VM_RESTART_UNLESS_STOPPED && (max == 0 || restart == VM_RESTART_ON_FAILURE));
	if (signal_by_name(text) >= 0)
		want(signal_by_name(text) < NSIG);
	free(text);
	return 0;
}
