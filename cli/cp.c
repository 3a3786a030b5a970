/* SPDX-License-Identifier: Apache-2.0 */
/* roux cp: files and trees into and out of running VMs. */
#include "abi/agent.h"
#include "api/session.h"
#include "cli/cli.h"
#include "cli/pick.h"
#include "copy/tree.h"
#include "os/err.h"

#include <cjson/cJSON.h>
#include <errno.h>
#include <getopt.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static const char help[] =
	"Usage: roux cp [OPTIONS] VM:PATH PATH\n"
	"       roux cp [OPTIONS] PATH VM:PATH\n\n"
	"Copies a file or a folder with all below it between a running VM and the host.\n"
	"Into a folder that exists it goes under its own name; PATH/. means the contents of a\n"
	"folder.  Modes, times and symbolic links are kept.\n\n"
	"  -a, --archive             Keep owners too (on the host this needs root)\n";

static int complain_tree(const struct tree_error *error)
{
	return error->error ? complain(EXIT_VERB, "%s: %s", error->what, strerror(error->error)) :
			      complain(EXIT_VERB, "%s", error->what);
}

/* What the top of @path is called elsewhere: its last component, or "" when it ends in "/." or is "/". */
static void base_name(const char *path, char ret[256])
{
	const char *end = path + strlen(path), *begin;

	while (end > path && end[-1] == '/')
		end--;
	begin = end;
	while (begin > path && begin[-1] != '/')
		begin--;
	(void)snprintf(ret, 256, "%.*s", (int)(end - begin), begin);
	if (strcmp(ret, ".") == 0 || strcmp(ret, "..") == 0)
		ret[0] = '\0';
}

/* The part behind "VM:" when @arg has one, which then is cut off. */
static char *split(char *arg)
{
	char *colon = strchr(arg, ':');

	if (!colon || colon == arg || arg[0] == '/' || arg[0] == '.')
		return NULL;
	*colon = '\0';
	return colon + 1;
}

static int begin(const struct vms *vms, const char *what, const char *path, const char *name, bool put,
		 struct session *ret_session)
{
	struct vm_record record;
	int status = pick_running(vms, what, &record);
	cJSON *body = cJSON_CreateObject();
	char absolute[4096];

	(void)snprintf(absolute, sizeof(absolute), "%s%s", path[0] == '/' ? "" : "/", path);
	(void)cJSON_AddStringToObject(body, "Path", absolute);
	(void)cJSON_AddStringToObject(body, "Name", name);
	(void)cJSON_AddBoolToObject(body, "Put", put);
	if (status == 0)
		status = pick_upgrade(vms, &record, "/v1/copy", body, EXIT_VERB, ret_session);
	cJSON_Delete(body);
	record_finish(&record);
	return status;
}

/* Tree input over what a session has received already. */
static bool make_input(const struct session *s, struct tree_input *ret)
{
	size_t left = s->in_len - s->taken;

	*ret = (struct tree_input){ .fd = s->fd, .cap = left + TREE_BUF_MIN, .len = left };
	ret->buf = malloc(ret->cap);
	if (ret->buf && left)
		memcpy(ret->buf, s->in + s->taken, left);
	return ret->buf;
}

static int copy_out(const struct vms *vms, const char *what, const char *from, const char *to, bool archive)
{
	struct session session;
	struct tree_error error;
	struct tree_input in;
	char name[256];
	int status;

	base_name(from, name);
	status = begin(vms, what, from, "", false, &session);
	if (status)
		return status;
	if (!make_input(&session, &in))
		status = complain(EXIT_ROUX, "out of memory");
	else if (tree_receive(&in, to, name, archive, &error) < 0)
		status = complain_tree(&error);
	free(in.buf);
	session_close(&session);
	return status;
}

/* The guest's answer to a tree it was sent; @sent: all of it. */
static int take_answer(struct session *session, bool sent, const struct tree_error *error)
{
	struct err err = { 0 };
	struct frame f;

	for (;;) {
		int r = session_next(session, &f);

		if (r == 0 && session_fill(session) == 0)
			continue;
		if (r != 1)
			return sent ? complain(EXIT_VERB, "the VM ended before the copy was complete") : complain_tree(error);
		if (f.type == AGENT_OK)
			return 0;
		if (f.type == AGENT_ERROR) {
			(void)session_error(&f, &err);
			return complain(EXIT_VERB, "%s", err.msg);
		}
	}
}

static int copy_in(const struct vms *vms, const char *from, const char *what, const char *to)
{
	struct session session;
	struct tree_error error = { .error = 0 };
	struct stat st;
	char name[256];
	int status, r;

	if (stat(from, &st) < 0)
		return complain(EXIT_VERB, "there is no file or folder %s", from);
	base_name(from, name);
	status = begin(vms, what, to, name, true, &session);
	if (status)
		return status;
	r = tree_send(session.fd, from, &error);
	/* A guest that gave up says why; our own failure is not its business. */
	status = r < 0 && error.error != EPIPE ? complain_tree(&error) : take_answer(&session, r == 0, &error);
	session_close(&session);
	return status;
}

int verb_cp(int argc, char **argv)
{
	static const struct option options[] = { { "archive", no_argument, NULL, 'a' },
						 { "follow-link", no_argument, NULL, 'L' },
						 { "help", no_argument, NULL, PICK_HELP },
						 { NULL, 0, NULL, 0 } };
	bool archive = false;
	char *from, *to;
	struct vms vms;
	int c, status;

	optind = 0;
	while ((c = getopt_long(argc, argv, "aL", options, NULL)) != -1) {
		if (c == 'a')
			archive = true;
		else if (c != 'L')	/* a link that is named itself is always followed */
			return pick_usage("cp", help, c);
	}
	if (argc - optind != 2)
		return complain(EXIT_ROUX, "cp needs a source and a destination; see 'roux cp --help'");
	(void)signal(SIGPIPE, SIG_IGN);
	from = split(argv[optind]);
	to = split(argv[optind + 1]);
	if (!from == !to)
		return complain(EXIT_ROUX, "exactly one of source and destination names a VM, as VM:PATH");
	status = pick_open(&vms);
	if (status)
		return status;
	return from ? copy_out(&vms, argv[optind], *from ? from : "/", argv[optind + 1], archive) :
		      copy_in(&vms, argv[optind], argv[optind + 1], *to ? to : "/");
}
