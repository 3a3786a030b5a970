/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Parsers of the guest agent.  The first byte chooses: frames from the host,
 * /roux.conf, or a user with account files (first line: who).
 */
#include "abi/agent.h"
#include "guest/conf.h"
#include "guest/request.h"
#include "guest/user.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

static void drive_identity(const struct frame *f)
{
	struct identity_request id;

	if (request_identity(f, &id) < 0)
		return;
	if (id.seed_len > IDENTITY_SEED_MAX || id.nkept > IDENTITY_ADDRESSES_MAX || id.noutside > IDENTITY_ADDRESSES_MAX ||
	    id.nleft > IDENTITY_ADDRESSES_MAX || id.ntaken > IDENTITY_ADDRESSES_MAX ||
	    (id.machine_id && strlen(id.machine_id) != IDENTITY_MACHINE_ID) || (id.hostname && !id.hostname[0]))
		abort();
}

static void on_read_ahead(struct read_ahead_request *req)
{
	if (req->path[0] != '/' || req->offset > INT64_MAX || req->size > INT64_MAX - req->offset)
		abort();
}

static void drive_request(const struct frame *f)
{
	static struct exec_request exec;
	struct mount_request mount;
	struct power_request power;
	struct hello hello;
	uint64_t u64;
	uint32_t u32;
	uint16_t rows, cols;

	switch (f->type) {
	case AGENT_EXEC:
		if (request_exec(f, &exec) == 0 && (exec.argv[exec.argc] || exec.cwd[0] != '/'))
			abort();
		break;
	case AGENT_MOUNT:
		if (request_mount(f, &mount) == 0 && mount.target[0] != '/')
			abort();
		break;
	case AGENT_IDENTITY:
		drive_identity(f);
		break;
	case AGENT_READ_AHEAD:
		(void)request_read_ahead(f, &(struct read_ahead_request){ .read = on_read_ahead });
		break;
	default:
		(void)request_hello(f, &hello);
		(void)request_power(f, &power);
		(void)request_clock(f, &u64);
		(void)request_signal(f, &u32);
		(void)request_resize(f, &rows, &cols);
	}
}

static void drive_frames(const uint8_t *data, size_t len)
{
	struct frame f;

	while (frame_parse(data, len, AGENT_FRAME_MAX, &f) == 1) {
		drive_request(&f);
		data += FRAME_HEADER + f.len;
		len -= FRAME_HEADER + f.len;
	}
}

static void drive_conf(const uint8_t *data, size_t len)
{
	static struct conf conf;
	char *text = malloc(len + 1);

	memcpy(text, data, len);
	(void)conf_parse(text, len, &conf);
	free(text);
}

static void drive_user(const uint8_t *data, size_t len)
{
	const uint8_t *end = memchr(data, '\n', len);
	char spec[64] = "";
	struct user user;

	if (!end || (size_t)(end - data) >= sizeof(spec))
		return;
	memcpy(spec, data, (size_t)(end - data));
	len -= (size_t)(end + 1 - data);
	(void)user_resolve(spec, (const char *)end + 1, len, (const char *)end + 1, len, &user);
	if (user.ngroups > USER_GROUPS_MAX || strlen(user.home) >= USER_HOME_MAX)
		abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	if (len == 0)
		return 0;
	switch (data[0]) {
	case 0:
		drive_frames(data + 1, len - 1);
		break;
	case 1:
		drive_conf(data + 1, len - 1);
		break;
	default:
		drive_user(data + 1, len - 1);
	}
	return 0;
}
