/* SPDX-License-Identifier: Apache-2.0 */
/* roux save and roux load. */
#include "cli/cli.h"
#include "cli/image.h"

#include "oci/bundle.h"
#include "os/file.h"

#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const char save_help[] =
	"Usage: roux save [-o FILE] IMAGE...\n"
	"\n"
	"Writes images to a tar that is an OCI image layout and also what 'docker load' takes,\n"
	"on standard output without -o.\n";

static const char load_help[] =
	"Usage: roux load [-q] [--json] [-i FILE|FOLDER] [NAME]\n"
	"\n"
	"Reads the images of an OCI image layout (tar or folder) or a docker-archive, from\n"
	"standard input without -i.  NAME is for an image that has no name there.\n";

static int find_all(struct store *store, struct store_lease *lease, char **names, size_t n, struct store_ref *refs,
		    struct err *err)
{
	int r = 0;

	for (size_t i = 0; r == 0 && i < n; i++)
		r = local_find_leased(store, lease, names[i], &refs[i], err);
	return r;
}

/* Into the file whole, or not at all. */
static int save_to(struct store *store, const struct store_ref *refs, size_t n, const char *path, struct err *err)
{
	struct file_new file;
	int r;

	if (!path)
		return bundle_save(store, refs, n, STDOUT_FILENO, err);
	r = file_new_begin(&file, path, 0644, err);
	if (r < 0)
		return r;
	r = bundle_save(store, refs, n, file.fd, err);
	if (r == 0)
		return file_new_commit(&file, err);
	file_new_abort(&file);
	return r;
}

int verb_save(int argc, char **argv)
{
	static const struct option options[] = { { "output", required_argument, NULL, 'o' },
						 { "help", no_argument, NULL, 'h' }, { NULL, 0, NULL, 0 } };
	struct store_lease *lease = NULL;
	struct store *store = NULL;
	struct store_ref *refs;
	const char *path = NULL;
	struct err err = { 0 };
	size_t n;
	int opt, r;

	optind = 0;
	while ((opt = getopt_long(argc, argv, "o:", options, NULL)) != -1) {
		if (opt == 'h')
			return verb_help(save_help);
		if (opt != 'o')
			return verb_misused("save", "that is not one of its options");
		path = optarg;
	}
	n = (size_t)(argc - optind);
	if (n == 0)
		return verb_misused("save", "save needs the name of an image");
	if (!path && isatty(STDOUT_FILENO))
		return complain(EXIT_FAILED, "an archive is nothing for a terminal: use -o FILE");
	if (!image_open_store(&store))
		return EXIT_FAILED;
	refs = calloc(n, sizeof(*refs));
	r = refs ? store_lease_begin(store, &lease, &err) : err_set(&err, -ENOMEM, "out of memory");
	if (r == 0)
		r = find_all(store, lease, argv + optind, n, refs, &err);
	if (r == 0)
		r = save_to(store, refs, n, path, &err);
	free(refs);
	store_lease_end(lease);
	store_close(store);
	return r < 0 ? image_failed(&err) : 0;
}

/* ---- load ---- */

struct told {
	bool quiet, json, any;
};

static void on_loaded(void *ctx, const struct store_ref *ref)
{
	struct told *t = ctx;

	if (t->json) {
		(void)printf("%s\n  {\"name\": ", t->any ? "," : "");
		json_string(stdout, ref->name);
		(void)printf(", \"digest\": \"%s\"}", ref->digest);
	} else if (t->quiet) {
		(void)printf("%s\n", ref->name);
	} else {
		(void)printf("Loaded image: %s\n", ref->name);
	}
	t->any = true;
}

/* Standard input becomes a file without a name: an archive is read more than once. */
static int spool(char ret_path[PATH_MAX], struct err *err)
{
	char dir[PATH_MAX], buf[65536];
	ssize_t n;
	int fd, r = file_cache_dir("load", dir, err);

	if (r < 0)
		return r;
	fd = open(dir, O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
	if (fd < 0)
		return err_set(err, -errno, "cannot keep standard input in %.100s: %s; use -i FILE", dir, strerror(errno));
	while (r == 0 && ((n = read(STDIN_FILENO, buf, sizeof(buf))) > 0 || (n < 0 && errno == EINTR)))
		if (n > 0)
			r = file_write_all(fd, buf, (size_t)n);
	if (r < 0) {
		close(fd);
		return err_set(err, r, "cannot keep standard input in %.100s: %s; use -i FILE", dir, strerror(-r));
	}
	(void)snprintf(ret_path, PATH_MAX, "/proc/self/fd/%d", fd);
	return fd;
}

int verb_load(int argc, char **argv)
{
	static const struct option options[] = { { "input", required_argument, NULL, 'i' },
						 { "quiet", no_argument, NULL, 'q' }, { "json", no_argument, NULL, 'j' },
						 { "help", no_argument, NULL, 'h' }, { NULL, 0, NULL, 0 } };
	struct store_lease *lease = NULL;
	struct store *store = NULL;
	const char *path = NULL;
	char spooled[PATH_MAX];
	struct told told = { .any = false };
	struct err err = { 0 };
	int opt, fd = -1, r = 0;

	optind = 0;
	while ((opt = getopt_long(argc, argv, "qi:", options, NULL)) != -1)
		switch (opt) {
		case 'h': return verb_help(load_help);
		case 'q': told.quiet = true; break;
		case 'j': told.json = true; break;
		case 'i': path = optarg; break;
		default: return verb_misused("load", "that is not one of its options");
		}
	if (optind + 1 < argc)
		return verb_misused("load", "load takes one name at most");
	if (!path && isatty(STDIN_FILENO))
		return complain(EXIT_FAILED, "load needs -i FILE, or an archive as standard input");
	if (!image_open_store(&store))
		return EXIT_FAILED;
	if (!path)
		r = fd = spool(spooled, &err);
	if (r >= 0)
		r = store_lease_begin(store, &lease, &err);
	if (told.json)
		(void)printf("[");
	if (r == 0)
		r = bundle_load(store, lease, path ? path : spooled, argv[optind], on_loaded, &told, &err);
	if (told.json)
		(void)printf("\n]\n");
	if (fd >= 0)
		close(fd);
	store_lease_end(lease);
	store_close(store);
	return r < 0 ? image_failed(&err) : 0;
}
