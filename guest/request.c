/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Each payload has one function that stores one field, and each_field() walks.
 */
#include "guest/request.h"

#include "abi/agent.h"

#include <signal.h>
#include <string.h>

#define HOSTNAME_MAX 64	/* bytes that Linux takes */

_Static_assert(IDENTITY_SEED_MAX == AGENT_SEED_MAX, "the ABI's");

/* Stores @field in @into; false breaks the request. */
typedef bool (*store_fn)(const struct field *field, void *into);

static int each_field(const struct frame *frame, store_fn store, void *into)
{
	struct field_reader reader = { frame->data, frame->len };
	struct field field;
	int r;

	while ((r = field_next(&reader, &field)) == 1)
		if (!store(&field, into) && !(field.tag & AGENT_TAG_OPTIONAL))
			return -1;
	return r;
}

static bool store_str(const struct field *field, const char **ret)
{
	*ret = field_str(field);
	return *ret != NULL;
}

static bool store_path(const struct field *field, const char **ret)
{
	return store_str(field, ret) && (*ret)[0] == '/';
}

static bool store_flag(const struct field *field, bool *ret)
{
	uint32_t v;

	if (!field_u32(field, &v) || v > 1)
		return false;
	*ret = v;
	return true;
}

static bool store_u16(const struct field *field, uint16_t *ret)
{
	uint32_t v;

	if (!field_u32(field, &v) || v == 0 || v > UINT16_MAX)
		return false;
	*ret = (uint16_t)v;
	return true;
}

static bool store_hello(const struct field *field, void *into)
{
	struct hello *hello = into;
	uint32_t magic;

	switch (field->tag) {
	case AGENT_TAG_MAGIC:
		return field_u32(field, &magic) && magic == AGENT_MAGIC;
	case AGENT_TAG_VERSION:
		return field_u32(field, &hello->version);
	case AGENT_TAG_VERSION_MIN:
		return field_u32(field, &hello->version_min);
	default:
		return false;
	}
}

int request_hello(const struct frame *frame, struct hello *ret_hello)
{
	*ret_hello = (struct hello){ 0 };
	if (each_field(frame, store_hello, ret_hello) < 0)
		return -1;
	return ret_hello->version && ret_hello->version_min ? 0 : -1;
}

static bool store_listed(const struct field *field, const char **list, unsigned *count)
{
	return *count < REQUEST_STRINGS_MAX && store_str(field, &list[(*count)++]);
}

static bool store_exec(const struct field *field, void *into)
{
	struct exec_request *req = into;

	switch (field->tag) {
	case AGENT_TAG_ARG:
		return store_listed(field, req->argv, &req->argc);
	case AGENT_TAG_ENV:
		return store_listed(field, req->env, &req->nenv) &&
		       strchr(req->env[req->nenv - 1], '=');
	case AGENT_TAG_CWD:
		return store_path(field, &req->cwd);
	case AGENT_TAG_USER:
		return store_str(field, &req->user);
	case AGENT_TAG_TTY:
		return store_flag(field, &req->tty);
	case AGENT_TAG_STDIN:
		return store_flag(field, &req->has_stdin);
	case AGENT_TAG_ROWS:
		return store_u16(field, &req->rows);
	case AGENT_TAG_COLS:
		return store_u16(field, &req->cols);
	case AGENT_TAG_PRIMARY:
		return store_flag(field, &req->primary);
	case AGENT_TAG_DETACHED:
		return store_flag(field, &req->detached);
	default:
		return false;
	}
}

int request_exec(const struct frame *frame, struct exec_request *ret_exec)
{
	/* Not cleared as a whole: the tables are large, and mostly stay unused. */
	ret_exec->argc = ret_exec->nenv = 0;
	ret_exec->cwd = "/";
	ret_exec->user = NULL;
	ret_exec->rows = ret_exec->cols = 0;
	ret_exec->tty = ret_exec->has_stdin = ret_exec->primary = ret_exec->detached = false;
	if (each_field(frame, store_exec, ret_exec) < 0)
		return -1;
	ret_exec->argv[ret_exec->argc] = NULL;
	ret_exec->env[ret_exec->nenv] = NULL;
	/* Streams and a session that powers the machine off are not for what outlives it. */
	if (ret_exec->detached && (ret_exec->tty || ret_exec->has_stdin || ret_exec->primary))
		return -1;
	return ret_exec->argc ? 0 : -1;
}

static bool store_mount(const struct field *field, void *into)
{
	struct mount_request *req = into;

	switch (field->tag) {
	case AGENT_TAG_MOUNT_TYPE:
		return store_str(field, &req->type);
	case AGENT_TAG_MOUNT_SOURCE:
		return store_str(field, &req->source);
	case AGENT_TAG_MOUNT_TARGET:
		return store_path(field, &req->target);
	case AGENT_TAG_MOUNT_OPTIONS:
		return store_str(field, &req->options);
	case AGENT_TAG_MOUNT_FLAGS:
		return field_u32(field, &req->flags);
	default:
		return false;
	}
}

int request_mount(const struct frame *frame, struct mount_request *ret_mount)
{
	const uint32_t known = AGENT_MOUNT_RDONLY | AGENT_MOUNT_NOSUID | AGENT_MOUNT_NODEV |
			       AGENT_MOUNT_NOEXEC;

	*ret_mount = (struct mount_request){ .source = "", .options = "" };
	if (each_field(frame, store_mount, ret_mount) < 0)
		return -1;
	return ret_mount->type && ret_mount->target && !(ret_mount->flags & ~known) ? 0 : -1;
}

static bool store_power(const struct field *field, void *into)
{
	struct power_request *req = into;

	switch (field->tag) {
	case AGENT_TAG_POWER_HOW:
		return field_u32(field, &req->how) && req->how <= AGENT_POWER_REBOOT;
	case AGENT_TAG_GRACE_MS:
		return field_u32(field, &req->grace_ms);
	default:
		return false;
	}
}

int request_power(const struct frame *frame, struct power_request *ret_power)
{
	*ret_power = (struct power_request){ .how = AGENT_POWER_OFF };
	return each_field(frame, store_power, ret_power);
}

static bool store_copy(const struct field *field, void *into)
{
	struct copy_request *req = into;

	switch (field->tag) {
	case AGENT_TAG_PATH:
		return store_path(field, &req->path);
	case AGENT_TAG_NAME:
		return store_str(field, &req->name);
	default:
		return false;
	}
}

int request_copy(const struct frame *frame, struct copy_request *ret_copy)
{
	*ret_copy = (struct copy_request){ .name = "" };
	return each_field(frame, store_copy, ret_copy) < 0 || !ret_copy->path ? -1 : 0;
}

static bool store_read_ahead(const struct field *field, void *into)
{
	struct read_ahead_request *req = into;

	switch (field->tag) {
	case AGENT_TAG_PATH:
		return store_path(field, &req->path);
	case AGENT_TAG_OFFSET:
		return field_u64(field, &req->offset) && req->offset <= INT64_MAX;
	case AGENT_TAG_SIZE:
		if (!req->path || !field_u64(field, &req->size) || req->size > INT64_MAX - req->offset)
			return false;
		req->read(req);
		return true;
	default:
		return false;
	}
}

int request_read_ahead(const struct frame *frame, struct read_ahead_request *req)
{
	return each_field(frame, store_read_ahead, req);
}

static bool store_clock(const struct field *field, void *into)
{
	return field->tag == AGENT_TAG_CLOCK_NS && field_u64(field, into);
}

int request_clock(const struct frame *frame, uint64_t *ret_ns)
{
	*ret_ns = 0;
	return each_field(frame, store_clock, ret_ns) < 0 || *ret_ns == 0 ? -1 : 0;
}

static bool store_address(const struct field *field, const char **list, unsigned *n)
{
	return *n < IDENTITY_ADDRESSES_MAX && store_str(field, &list[(*n)++]);
}

static bool store_machine_id(const struct field *field, const char **ret_id)
{
	const char *id;

	if (!store_str(field, &id) || strlen(id) != IDENTITY_MACHINE_ID ||
	    strspn(id, "0123456789abcdef") != IDENTITY_MACHINE_ID)
		return false;
	*ret_id = id;
	return true;
}

static bool store_identity(const struct field *field, void *into)
{
	struct identity_request *id = into;

	switch (field->tag) {
	case AGENT_TAG_CLOCK_NS:
		return field_u64(field, &id->clock_ns);
	case AGENT_TAG_SEED:
		id->seed = field->data;
		id->seed_len = field->len;
		return field->len >= 1 && field->len <= IDENTITY_SEED_MAX;
	case AGENT_TAG_RESET:
		id->reset = true;
		return field->len == 0;
	case AGENT_TAG_KEPT:
		return store_address(field, id->kept, &id->nkept);
	case AGENT_TAG_OUTSIDE:
		return store_address(field, id->outside, &id->noutside);
	case AGENT_TAG_LEFT:
		return store_address(field, id->left, &id->nleft);
	case AGENT_TAG_TAKEN:
		return store_address(field, id->taken, &id->ntaken);
	case AGENT_TAG_MAC:
		id->mac = field->data;
		return field->len == 6;
	case AGENT_TAG_MACHINE_ID:
		return store_machine_id(field, &id->machine_id);
	case AGENT_TAG_HOSTNAME:
		return store_str(field, &id->hostname) && id->hostname[0] && strlen(id->hostname) <= HOSTNAME_MAX;
	default:
		return false;
	}
}

int request_identity(const struct frame *frame, struct identity_request *ret_identity)
{
	*ret_identity = (struct identity_request){ .clock_ns = 0 };
	return each_field(frame, store_identity, ret_identity);
}

static bool store_signal(const struct field *field, void *into)
{
	return field->tag == AGENT_TAG_SIGNO && field_u32(field, into);
}

int request_signal(const struct frame *frame, uint32_t *ret_signo)
{
	*ret_signo = 0;
	if (each_field(frame, store_signal, ret_signo) < 0)
		return -1;
	return *ret_signo >= 1 && *ret_signo < NSIG ? 0 : -1;
}

struct size {
	uint16_t rows, cols;
};

static bool store_size(const struct field *field, void *into)
{
	struct size *size = into;

	switch (field->tag) {
	case AGENT_TAG_ROWS:
		return store_u16(field, &size->rows);
	case AGENT_TAG_COLS:
		return store_u16(field, &size->cols);
	default:
		return false;
	}
}

int request_resize(const struct frame *frame, uint16_t *ret_rows, uint16_t *ret_cols)
{
	struct size size = { 0 };

	if (each_field(frame, store_size, &size) < 0 || !size.rows || !size.cols)
		return -1;
	*ret_rows = size.rows;
	*ret_cols = size.cols;
	return 0;
}
