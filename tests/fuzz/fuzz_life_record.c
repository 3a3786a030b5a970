/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Records of VMs and lines of the event log, as a crash or another user of the disk may
 * leave them.  What is taken and written again is taken again, and says the same.
 */
#include "life/events.h"
#include "life/names.h"
#include "life/record.h"
#include "os/err.h"
#include "tests/fuzz/check.h"

#include <errno.h>
#include <stdint.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

static void check_again(const struct vm_record *record)
{
	char *first = record_encode(record), *second;
	struct vm_record again;

	want(first);
	record_init(&again);
	want(record_decode(first, strlen(first), &again, NULL) == 0);
	second = record_encode(&again);
	want(second && strcmp(first, second) == 0);
	record_finish(&again);
	free(first);
	free(second);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	struct vm_record record;
	struct err err = { 0 };
	struct event event;
	int r;

	record_init(&record);
	r = record_decode((const char *)data, len, &record, &err);
	want(r == 0 || (r == -EBADMSG && err.msg[0]));
	if (r == 0) {
		want(vm_id_valid(record.id) && vm_name_valid(record.name));
		check_again(&record);
	}
	record_finish(&record);
	if (event_parse((const char *)data, len, &event))
		want(vm_id_valid(event.id));
	return 0;
}
