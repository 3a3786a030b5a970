/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A running VM in a file: machine/snapshot.h, whose notes are one JSON document,
 *
 *   { "Record": {...}, "Session": { "Stream": "5252:1073741825", "In": "00ff", "Out": "", "Window": 131072,
 *     "EofSent": false } }
 *
 * the VM's record (life/record.h) and where its command's session with the agent was: the guest
 * stands still until all that it sent is here.
 */
#include "life/inside.h"

#include "abi/agent.h"
#include "api/handle.h"
#include "life/events.h"
#include "os/file.h"

#include <cjson/cJSON.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

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

static char *describe(const struct monitor *m)
{
	const struct stream *s = &m->command.stream;
	cJSON *json = cJSON_CreateObject(), *session = cJSON_AddObjectToObject(json, "Session");
	char *text;

	(void)cJSON_AddItemToObject(json, "Record", record_to_json(&m->record));
	(void)cJSON_AddStringToObject(session, "Stream", m->command.name);
	add_bytes(session, "In", s->in, s->in_len);
	add_bytes(session, "Out", s->out ? s->out + s->out_at : NULL, s->out_len);
	(void)cJSON_AddNumberToObject(session, "Window", m->command.window);
	(void)cJSON_AddBoolToObject(session, "EofSent", m->command.eof_sent);
	text = cJSON_PrintUnformatted(json);
	cJSON_Delete(json);
	return text;
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

	for (uint32_t i = 0; i < c->ndisks; i++)
		if (!c->disk[i].read_only)
			return err_set(err, -EOPNOTSUPP, "the VM writes to disk %s, which is not saved with it; only disks with ':ro' can be",
				       c->disk[i].path);
	if (c->network.kind && strcmp(c->network.kind, "user") != 0)
		return err_set(err, -EOPNOTSUPP, "VMs on %s networks cannot be saved yet", c->network.kind);
	return 0;
}

/* All that the guest had sent when it was stopped is here then. */
static int settle(struct monitor *m, char **ret_notes, struct err *err)
{
	if (!stream_drain(&m->command.stream))
		return err_set(err, -EBUSY, "what the command has written is not taken; try again");
	if (!monitor_running(m))
		return err_set(err, -ESRCH, "the command ended meanwhile");
	*ret_notes = describe(m);
	return *ret_notes ? 0 : err_set(err, -ENOMEM, "out of memory");
}

/* The guest stands afterwards if that is all right and @stay. */
static int save(struct monitor *m, int fd, bool stay, uint64_t *ret_bytes, struct err *err)
{
	struct checkpoint *checkpoint;
	struct err late = { 0 };
	char *notes = NULL;
	int r = checkpoint_begin(m->machine, fd, &checkpoint, err);

	if (r < 0)
		return r;
	r = settle(m, &notes, err);
	if (m->machine && (r < 0 || !stay))
		checkpoint_go_on(m->machine);
	if (checkpoint_end(checkpoint, notes, ret_bytes, &late) < 0 && r == 0) {
		*err = late;
		r = late.code;
		if (stay)
			checkpoint_go_on(m->machine);
	}
	free(notes);
	return r;
}

int checkpoint_write(struct monitor *m, const char *path, bool stop, uint64_t *ret_bytes, struct err *err)
{
	struct file_new file;
	int r = check(m, err);

	if (r == 0)
		r = file_new_begin(&file, path, 0600, err);
	if (r < 0)
		return r;
	r = save(m, file.fd, stop, ret_bytes, err);
	if (r < 0) {
		file_new_abort(&file);
		return r;
	}
	r = file_new_commit(&file, err);
	if (stop && r < 0)
		checkpoint_go_on(m->machine);
	else if (stop)
		monitor_end(m);
	return r;
}
