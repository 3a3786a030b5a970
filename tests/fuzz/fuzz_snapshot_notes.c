/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the notes of a snapshot say, as whoever has had the file in his hands may have changed it: where a session
 * was, and disks.  Files are taken only from beside the snapshot, and copied only into the VM's folder.
 */
#include "life/inside.h"
#include "life/snapshot_disks.h"
#include "os/file.h"
#include "tests/fuzz/check.h"

#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define NAME "a.snap"
#define DISK NAME ".0123456789abcdef.disk0"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

static char folder[64], snapshot[96], vm[96];

static void set_up(void)
{
	static const uint8_t bytes[1000] = { [512] = 1 };
	char path[128];

	if (folder[0])
		return;
	(void)snprintf(folder, sizeof(folder), "/tmp/roux-notes-XXXXXX");
	want(mkdtemp(folder));
	(void)snprintf(snapshot, sizeof(snapshot), "%s/" NAME, folder);
	(void)snprintf(vm, sizeof(vm), "%s/vm", folder);
	(void)snprintf(path, sizeof(path), "%s/" DISK, folder);
	want(file_write_atomic(path, bytes, sizeof(bytes), 0600, NULL) == 0);
}

static void try_disks(const char *text)
{
	struct vm_config c = { .ndisks = 2 };
	char layer[PATH_MAX];

	want(file_mkdirs(vm, 0700, NULL) == 0);
	c.disk[0].path = strdup(snapshot);
	c.disk[1].path = strdup("/dev/null");
	c.disk[1].read_only = text[0] == ' ';
	c.disk[1].overlay = text[0] == '\n';
	if (snapshot_disks_restore(snapshot, text, vm, &c, NULL) == 0 && strcmp(c.disk[0].path, snapshot) != 0)
		want(strncmp(c.disk[0].path, vm, strlen(vm)) == 0 && access(c.disk[0].path, R_OK) == 0);
	(void)snapshot_disks_layer(vm, 1, layer);
	free(c.disk[0].path);
	free(c.disk[1].path);
	want(file_remove_tree(AT_FDCWD, vm) == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	char *text = malloc(len + 1);
	struct session_notes notes;

	want(text);
	memcpy(text, data, len);
	text[len] = '\0';
	set_up();
	(void)session_notes_read(text, &notes, NULL);
	session_notes_finish(&notes);
	try_disks(text);
	free(text);
	return 0;
}
