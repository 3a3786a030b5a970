/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A running VM in a file: machine/snapshot.h, whose notes are one JSON document,
 *
 *   { "Record": {...}, "Session": { "Stream": "5252:1073741825", "In": "00ff", "Out": "", "Window": 131072,
 *     "EofSent": false }, "Network": { "Address4": "10.89.1.2/24", "Address6": "" }, "Disks": [...] }
 *
 * the VM's record (life/record.h), its addresses, where its command's session with the agent was (the guest
 * stands still until all that it sent is here), and its disks (life/snapshot_disks.h).
 */
#include "life/inside.h"

#include "abi/agent.h"
#include "api/disks.h"
#include "api/handle.h"
#include "life/events.h"
#include "life/snapshot_disks.h"
#include "life/snapshots.h"
#include "os/file.h"

#include <cjson/cJSON.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* -------------------------------------------------------------------- notes */

static char *to_hex(const uint8_t *bytes, size_t len)
{
	static const char digits[] = "0123456789abcdef";
	char *text = malloc(2 * len + 1);

	for (size_t i = 0; text && i < len; i++) {
		text[2 * i] = digits[bytes[i] >> 4];
		text[2 * i + 1] = digits[bytes[i] & 15];
	}
	if (text)
		text[2 * len] = '\0';
	return text;
}

static int digit(char c)
{
	return c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

static bool from_hex(const char *text, uint8_t **ret_bytes, size_t *ret_len)
{
	size_t len = text ? strlen(text) / 2 : 0;
	uint8_t *bytes = malloc(len + 1);

	*ret_bytes = bytes;
	*ret_len = len;
	if (!text || !bytes || strlen(text) % 2)
		return false;
	for (size_t i = 0; i < len; i++) {
		int high = digit(text[2 * i]), low = digit(text[2 * i + 1]);

		if (high < 0 || low < 0)
			return false;
		bytes[i] = (uint8_t)(high << 4 | low);
	}
	return true;
}

static void add_bytes(cJSON *json, const char *name, const uint8_t *bytes, size_t len)
{
	char *text = to_hex(bytes, len);

	if (text)
		(void)cJSON_AddStringToObject(json, name, text);
	free(text);
}

static void add_addresses(cJSON *json, const struct monitor *m)
{
	char addr[2][50];

	machine_addresses(m->machine, addr);
	(void)cJSON_AddStringToObject(json, "Address4", addr[0]);
	(void)cJSON_AddStringToObject(json, "Address6", addr[1]);
}

static cJSON *describe(const struct monitor *m)
{
	const struct stream *s = &m->command.stream;
	cJSON *json = cJSON_CreateObject(), *session = cJSON_AddObjectToObject(json, "Session");

	(void)cJSON_AddItemToObject(json, "Record", record_to_json(&m->record));
	add_addresses(cJSON_AddObjectToObject(json, "Network"), m);
	(void)cJSON_AddStringToObject(session, "Stream", m->command.name);
	add_bytes(session, "In", s->in, s->in_len);
	add_bytes(session, "Out", s->out ? s->out + s->out_at : NULL, s->out_len);
	(void)cJSON_AddNumberToObject(session, "Window", m->command.window);
	(void)cJSON_AddBoolToObject(session, "EofSent", m->command.eof_sent);
	return json;
}

static bool get_address(const cJSON *network, const char *name, char ret[50])
{
	const char *text = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(network, name));

	return text && snprintf(ret, 50, "%s", text) < 50;
}

int session_notes_read(const char *text, struct session_notes *n, struct err *err)
{
	cJSON *json = cJSON_Parse(text ? text : ""), *session = cJSON_GetObjectItemCaseSensitive(json, "Session");
	const char *stream = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(session, "Stream"));
	const cJSON *window = cJSON_GetObjectItemCaseSensitive(session, "Window");
	bool good;

	*n = (struct session_notes){ .eof_sent = cJSON_IsTrue(cJSON_GetObjectItemCaseSensitive(session, "EofSent")) };
	good = stream && strlen(stream) < sizeof(n->stream) && cJSON_IsNumber(window) && window->valuedouble >= 0 &&
	       window->valuedouble <= AGENT_STDIN_WINDOW &&
	       from_hex(cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(session, "In")), &n->in, &n->in_len) &&
	       from_hex(cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(session, "Out")), &n->out, &n->out_len);
	for (unsigned i = 0; i < 2 && good; i++)
		good = get_address(cJSON_GetObjectItemCaseSensitive(json, "Network"), i ? "Address6" : "Address4", n->address[i]);
	if (good) {
		memcpy(n->stream, stream, strlen(stream) + 1);
		n->window = (uint32_t)window->valuedouble;
	}
	cJSON_Delete(json);
	return good ? 0 : err_set(err, -EBADMSG, "the snapshot was not made by 'roux checkpoint'");
}

void session_notes_finish(struct session_notes *n)
{
	free(n->in);
	free(n->out);
	n->in = n->out = NULL;
}

/* ---------------------------------------------------------------------- save */

/* What a snapshot would not bring back as it was. */
static int check(const struct monitor *m, struct err *err)
{
	const struct vm_config *c = &m->record.config;

	if (c->network.kind && strcmp(c->network.kind, "tap") == 0)
		return err_set(err, -EOPNOTSUPP, "a VM on a TAP device cannot be saved: two of them would have its addresses, of which "
			       "roux knows nothing");
	return 0;
}

struct saving {
	struct monitor *m;
	const struct checkpoint_options *options;
	char prefix[PATH_MAX];	/* of the files of disks */
	struct disk_saves disks;
	bool own_code;
};

static int begin_disks(struct saving *s, struct err *err)
{
	const struct vm_config *c = &s->m->record.config;
	int r = 0;

	for (uint32_t i = 0; i < c->ndisks && r == 0; i++)
		if (!c->disk[i].read_only && (c->disk[i].overlay || !s->options->keep_disks))
			r = disks_begin(&s->disks, s->m->machine, i, s->prefix, err);
	return r;
}

/* All that the guest had sent when it was stopped is here then. */
static int settle(struct saving *s, cJSON **ret_notes, struct err *err)
{
	struct monitor *m = s->m;
	int r = disks_stand(&s->disks, err);

	if (r < 0)
		return r;
	if (!stream_drain(&m->command.stream))
		return err_set(err, -EBUSY, "what the command has written is not taken; try again");
	if (!monitor_running(m))
		return err_set(err, -ESRCH, "the command ended meanwhile");
	*ret_notes = describe(m);
	return 0;
}

static int add_disks(struct saving *s, cJSON *notes, struct err *err)
{
	int r = disks_finish(&s->disks, err);

	return r < 0 ? r : snapshot_disks_describe(notes, &s->m->record.config, &s->disks, err);
}

/* The guest stands afterwards if that is all right and it is to be stopped. */
static int save(struct saving *s, int fd, const struct checkpoint_plan *plan, uint64_t *ret_bytes, struct err *err)
{
	struct roux_machine *machine = s->m->machine;
	bool stay = s->options->stop;
	struct checkpoint *checkpoint;
	struct err late = { 0 };
	cJSON *notes = NULL;
	char *text = NULL;
	int r = begin_disks(s, err);

	if (r == 0)
		r = checkpoint_begin(machine, fd, plan, &checkpoint, err);
	if (r < 0) {
		if (s->m->machine)
			checkpoint_go_on(machine);
		return r;
	}
	r = settle(s, &notes, err);
	if (s->m->machine && (r < 0 || !stay))
		checkpoint_go_on(machine);
	if (r == 0)
		r = add_disks(s, notes, err);
	if (r == 0)
		text = cJSON_PrintUnformatted(notes);
	cJSON_Delete(notes);
	if (checkpoint_end(checkpoint, text, ret_bytes, &s->own_code, &late) < 0 && r == 0) {
		*err = late;
		r = late.code;
	}
	if (r < 0 && stay && s->m->machine)
		checkpoint_go_on(machine);
	free(text);
	return r;
}

static int save_with(struct saving *s, int fd, uint64_t *ret_bytes, struct err *err)
{
	const struct checkpoint_options *o = s->options;
	struct checkpoint_plan plan = { .base = o->base, .scratch = -1 };
	char name[PATH_MAX];
	int r = o->base ? snapshot_path_between(o->path, o->base, name, err) : 0;

	if (r < 0)
		return r;
	plan.base_name = name;
	plan.scratch = o->compress ? file_scratch(o->path, err) : -1;
	if (o->compress && plan.scratch < 0)
		return plan.scratch;
	r = save(s, fd, &plan, ret_bytes, err);
	if (plan.scratch >= 0)
		(void)close(plan.scratch);
	return r;
}

int checkpoint_write(struct monitor *m, const struct checkpoint_options *o, uint64_t *ret_bytes, struct err *err)
{
	struct saving *s = calloc(1, sizeof(*s));
	struct file_new file;
	int fd, r = s ? check(m, err) : err_set(err, -ENOMEM, "out of memory");

	if (r == 0)
		r = snapshot_check_replaced(&m->vms, o->path, o->base, err);
	if (r == 0) {
		s->m = m;
		s->options = o;
		r = snapshot_disks_prefix(o->path, s->prefix, err);
	}
	if (r == 0)
		r = file_new_begin(&file, o->path, 0600, err);
	if (r == 0) {
		r = save_with(s, file.fd, ret_bytes, err);
		fd = fcntl(file.fd, F_DUPFD_CLOEXEC, 0);
		if (r < 0)
			file_new_abort(&file);
		else
			r = file_new_commit(&file, err);
		if (r == 0 && fd >= 0)
			checkpoint_written(o->path, fd, s->own_code);
		if (fd >= 0)
			(void)close(fd);
		if (r < 0 && o->stop && m->machine)	/* it may have ended by itself */
			checkpoint_go_on(m->machine);
		disks_close(&s->disks, r == 0);
	}
	if (r == 0)
		snapshot_disks_tidy(o->path, s->prefix);
	if (r == 0 && o->stop)
		monitor_end(m);
	free(s);
	return r;
}
