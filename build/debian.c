/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The layer is written in this order: the folders and links of a merged /usr, the
 * files of each package, then dpkg's database and what the packages' scripts would
 * have made that nothing works without.
 */
#include "build/debian.h"

#include "build/archive_file.h"
#include "build/packages.h"
#include "oci/http.h"
#include "oci/local.h"
#include "oci/pack.h"
#include "os/err.h"
#include "os/file.h"
#include "os/process.h"

#include <archive.h>
#include <archive_entry.h>
#include <cjson/cJSON.h>
#include <errno.h>
#include <fcntl.h>
#include <search.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define COMPONENT "main/binary-amd64/Packages.xz"
#define KEYRING "/usr/share/keyrings/debian-archive-keyring.gpg"
#define RELEASE_MAX (4u * 1024u * 1024u)
#define INDEX_MAX (512u * 1024u * 1024u) /* bytes of an index, uncompressed */
#define FILE_MAX_ (512ull * 1024 * 1024) /* bytes of one download, or of one file of a package */
#define STEP (256u * 1024u)
#define ATTEMPTS 3

struct debian {
	const struct debian_options *o;
	struct http *http;
	char cache[PATH_MAX];
	time_t date;	/* of the release */
	struct packages packages;
	/* the layer */
	struct pack *pack;
	struct archive *tar;
	void *seen;	/* tsearch() tree of folders written; owned strings */
	char *status;	/* dpkg's, growing; owned */
	size_t status_len;
	FILE *status_file;
	char *passwd, *group;	/* owned, NULL until met */
	struct err *err;
};

static const char *mirror_of(const struct debian *d)
{
	return d->o->mirror ? d->o->mirror : DEBIAN_MIRROR;
}

__attribute__((format(printf, 2, 3))) static void say(const struct debian *d, const char *fmt, ...)
{
	char line[256];
	va_list ap;

	if (!d->o->say)
		return;
	va_start(ap, fmt);
	(void)vsnprintf(line, sizeof(line), fmt, ap);
	va_end(ap);
	d->o->say(d->o->ctx, line);
}

/* ---- downloads ---- */

struct sink {
	int fd;
	struct sha256 hash;
	uint64_t max;
};

static int on_body(void *ctx, struct http_call *call, const void *data, size_t len)
{
	struct sink *sink = ctx;

	(void)call;
	if (len > sink->max - sink->hash.bytes)
		return -EFBIG;
	sha256_add(&sink->hash, data, len);
	return file_write_all(sink->fd, data, len);
}

/* One try.  1: it may work the next time. */
static int get_once(struct debian *d, const char *name, uint64_t max, const char *hex, struct file_new *file)
{
	struct http_call *call = calloc(1, sizeof(*call));
	struct sink sink = { .fd = file->fd, .max = max };
	char have[SHA256_HEX_SIZE];
	int r;

	if (!call)
		return err_set(d->err, -ENOMEM, "out of memory");
	sha256_init(&sink.hash);
	call->method = "GET";
	call->on_body = on_body;
	call->ctx = &sink;
	if (snprintf(call->url, sizeof(call->url), "%s/%s", mirror_of(d), name) >= (int)sizeof(call->url))
		r = err_set(d->err, -ENAMETOOLONG, "the mirror's name is too long");
	else
		r = http_do(d->http, call, d->err);
	if (r == 0 && call->result < 0)
		r = call->transient ? 1 : err_set(d->err, call->result, "cannot get %.80s from %.60s: %.60s; --mirror names another mirror",
						  name, mirror_of(d), call->message);
	else if (r == 0 && call->status == 404)
		r = err_set(d->err, -ENOENT, "%.60s has no %.100s: check the name of the suite", mirror_of(d), name);
	else if (r == 0 && call->status != 200)
		r = call->status >= 500 ? 1 : err_set(d->err, -EPROTO, "cannot get %.80s from %.60s: status %ld", name, mirror_of(d), call->status);
	if (r == 0 && hex) {
		sha256_finish_hex(&sink.hash, have);
		if (strcmp(have, hex) != 0)
			r = err_set(d->err, -EBADMSG, "%.80s from %.60s does not have the digest that Debian names: try another --mirror",
				    name, mirror_of(d));
	}
	http_finish(call);
	free(call);
	return r;
}

/* Downloads @name below the mirror to @path.  @hex: its SHA-256, or NULL. */
static int get(struct debian *d, const char *name, uint64_t max, const char *hex, const char *path)
{
	int r = 1;

	for (int i = 0; r == 1 && i < ATTEMPTS; i++) {
		struct file_new file;

		r = file_new_begin(&file, path, 0644, d->err);
		if (r < 0)
			return r;
		r = get_once(d, name, max, hex, &file);
		if (r == 0)
			return file_new_commit(&file, d->err);
		file_new_abort(&file);
	}
	return r == 1 ? err_set(d->err, -EHOSTUNREACH, "cannot get %.80s: %.80s does not answer; try again, or another --mirror", name,
				mirror_of(d)) : r;
}

/* A file that is named by its digest in the cache. */
static int get_cached(struct debian *d, const char *name, uint64_t size, const char *hex, char ret_path[PATH_MAX])
{
	struct stat st;
	int r = file_path(ret_path, d->err, d->cache, "/", hex, NULL);

	if (r < 0 || (stat(ret_path, &st) == 0 && (uint64_t)st.st_size == size))
		return r;
	if (size > FILE_MAX_)
		return err_set(d->err, -EFBIG, "%.80s is too large", name);
	return get(d, name, size, hex, ret_path);
}

/* ---- release ---- */

/* The text between the armour of a signed message, when nothing can check it. */
static char *strip_armour(char *text)
{
	char *from = strstr(text, "\n\n"), *to = strstr(text, "\n-----BEGIN PGP SIGNATURE-----");

	if (strncmp(text, "-----BEGIN PGP SIGNED MESSAGE-----", 34) != 0 || !from || !to || to < from)
		return text;
	to[1] = '\0';
	return from + 2;
}

/*
 * The signed text of the Release file in fresh memory.  gpgv writes what the
 * signature covers, so that nothing else is believed.
 */
static int get_release(struct debian *d, char **ret_text)
{
	char path[PATH_MAX], out[PATH_MAX], name[160], *text;
	const char *argv[] = { "gpgv", "-q", "--keyring", KEYRING, "--output", out, path, NULL };
	struct process_result res;
	size_t len;
	bool check = access(KEYRING, R_OK) == 0;
	int r = file_path(path, d->err, d->cache, "/InRelease-", d->o->suite, NULL);

	if (r == 0)
		r = file_path(out, d->err, path, ".signed", NULL);
	if (r < 0)
		return r;
	(void)snprintf(name, sizeof(name), "dists/%s/InRelease", d->o->suite);
	r = get(d, name, RELEASE_MAX, NULL, path);
	if (r < 0)
		return r;
	(void)unlink(out);
	r = check ? process_run(argv, NULL, NULL, 65536, d->o->cancel, &res, d->err) : -ENOENT;
	if (r == 0) {
		free(res.out);
		if (res.status != 0)
			return err_set(d->err, -EBADMSG, "the signature of suite %.40s at %.80s is wrong: try another --mirror", d->o->suite,
				       mirror_of(d));
	} else if (r == -ENOENT) {
		say(d, "The signature of the suite is not checked: install gpgv and debian-archive-keyring for that");
	} else {
		return r;
	}
	r = file_read_all(r == 0 ? out : path, RELEASE_MAX, &text, &len, d->err);
	if (r < 0)
		return r == -ENOENT ? err_set(d->err, r, "cannot read %.200s", path) : r;
	*ret_text = strdup(strip_armour(text));
	free(text);
	return *ret_text ? 0 : err_set(d->err, -ENOMEM, "out of memory");
}

/* The packages of the suite; their strings are in the text, which the caller frees in any case. */
static int get_index(struct debian *d, char **ret_text)
{
	char *release, hex[65], name[200], path[PATH_MAX];
	const char *date;
	struct tm tm = { 0 };
	uint64_t size;
	size_t len;
	int r = get_release(d, &release);

	if (r < 0)
		return r;
	date = strstr(release, "\nDate: ");
	if (date && strptime(date + 7, "%a, %d %b %Y %H:%M:%S", &tm))
		d->date = timegm(&tm);
	r = packages_release_hash(release, COMPONENT, hex, &size, d->err);
	free(release);
	if (r < 0)
		return r;
	(void)snprintf(name, sizeof(name), "dists/%s/" COMPONENT, d->o->suite);
	r = get_cached(d, name, size, hex, path);
	if (r == 0)
		r = archive_read_file(path, INDEX_MAX, ret_text, &len, d->err);
	return r < 0 ? r : packages_parse(*ret_text, len, &d->packages, d->err);
}

/* ---- writing the layer ---- */

static int tar_failed(struct debian *d, const char *name)
{
	return pack_archive_error(d->pack, d->tar, name, d->err);
}

static int by_text(const void *a, const void *b)
{
	return strcmp(a, b);
}

/* Whether folder @name comes for the first time. */
static bool first_time(struct debian *d, const char *name)
{
	char *copy = strdup(name);
	void *node = copy ? tsearch(copy, &d->seen, by_text) : NULL;

	if (node && *(char **)node == copy)
		return true;
	free(copy);
	return false;
}

/* A file, folder or link made here.  @data: content, or target of the link. */
static int put(struct debian *d, const char *name, unsigned type, unsigned mode, const char *data, size_t len)
{
	struct archive_entry *e;
	int r = 0;

	if (type == AE_IFDIR && !first_time(d, name))
		return 0;
	e = archive_entry_new();
	if (!e)
		return err_set(d->err, -ENOMEM, "out of memory");
	archive_entry_set_pathname(e, name);
	archive_entry_set_filetype(e, type);
	archive_entry_set_perm(e, mode);
	archive_entry_set_mtime(e, d->date, 0);
	if (type == AE_IFLNK)
		archive_entry_set_symlink(e, data);
	else if (type == AE_IFREG)
		archive_entry_set_size(e, (la_int64_t)len);
	if (archive_write_header(d->tar, e) < ARCHIVE_WARN || (type == AE_IFREG && len && archive_write_data(d->tar, data, len) < 0))
		r = tar_failed(d, name);
	archive_entry_free(e);
	return r;
}

static int put_text(struct debian *d, const char *name, unsigned mode, const char *text)
{
	return put(d, name, AE_IFREG, mode, text, strlen(text));
}

static const char *const merged[] = { "bin", "sbin", "lib", "lib64" };

static int put_merged_usr(struct debian *d)
{
	char name[16];
	int r = put(d, "usr", AE_IFDIR, 0755, NULL, 0);

	for (size_t i = 0; r == 0 && i < sizeof(merged) / sizeof(merged[0]); i++) {
		(void)snprintf(name, sizeof(name), "usr/%s", merged[i]);
		r = put(d, name, AE_IFDIR, 0755, NULL, 0);
		if (r == 0)
			r = put(d, merged[i], AE_IFLNK, 0777, name, 0);
	}
	return r;
}

/* Where a name of a package goes: without "./", and below usr/ when it is in a merged folder. */
static bool map_name(const char *name, char ret[PATH_MAX])
{
	while (strncmp(name, "./", 2) == 0)
		name += 2;
	for (size_t i = 0; i < sizeof(merged) / sizeof(merged[0]); i++) {
		size_t n = strlen(merged[i]);

		if (strncmp(name, merged[i], n) == 0 && (name[n] == '/' || name[n] == '\0'))
			return file_path(ret, NULL, "usr/", name, NULL) == 0;
	}
	return file_path(ret, NULL, name, NULL) == 0;
}

/* All data of the entry in fresh memory, or NULL. */
static char *read_entry(struct archive *a, struct archive_entry *e, size_t *ret_len)
{
	la_int64_t size = archive_entry_size(e);
	char *data = size >= 0 && size <= 16 << 20 ? malloc((size_t)size + 1) : NULL;

	if (!data || archive_read_data(a, data, (size_t)size) != size) {
		free(data);
		return NULL;
	}
	data[size] = '\0';
	*ret_len = (size_t)size;
	return data;
}

static int copy_data(struct debian *d, struct archive *a, const char *name)
{
	const void *data;
	la_int64_t off;
	size_t len;
	int got;

	while ((got = archive_read_data_block(a, &data, &len, &off)) == ARCHIVE_OK)
		if (archive_write_data(d->tar, data, len) < 0)
			return tar_failed(d, name);
	return got == ARCHIVE_EOF ? 0 : archive_err(d->err, a, name);
}

/* The masters from which base-passwd makes the files of users and groups. */
static int keep_master(struct debian *d, struct archive *a, struct archive_entry *e, const char *name)
{
	char **keep = strcmp(name, "usr/share/base-passwd/passwd.master") == 0 ? &d->passwd
		    : strcmp(name, "usr/share/base-passwd/group.master") == 0 ? &d->group : NULL;
	size_t len;

	if (!keep)
		return 0;
	free(*keep);
	*keep = read_entry(a, e, &len);
	if (!*keep)
		return err_set(d->err, -EBADMSG, "%.100s of a package is damaged", name);
	return archive_write_data(d->tar, *keep, len) < 0 ? tar_failed(d, name) : 1;
}

static int copy_entry(struct debian *d, struct archive *a, struct archive_entry *e, FILE *list)
{
	const char *given = archive_entry_pathname(e), *link = archive_entry_hardlink(e);
	char name[PATH_MAX], target[PATH_MAX];
	size_t given_len;
	int r;

	if (!given || !map_name(given, name) || (link && !map_name(link, target)))
		return err_set(d->err, -EBADMSG, "a package has a file without a proper name");
	given += strncmp(given, "./", 2) == 0 ? 1 : 0;
	/* As dpkg writes it: absolute, the root as "/.". */
	given_len = strlen(given) - (given[0] && given[strlen(given) - 1] == '/');
	(void)fprintf(list, "%s%.*s\n", given_len == 0 ? "/." : given[0] == '/' ? "" : "/", (int)given_len, given);
	for (size_t n = strlen(name); n && name[n - 1] == '/'; n--)
		name[n - 1] = '\0';
	if (!name[0])
		return 0;
	if (archive_entry_filetype(e) == AE_IFDIR && !first_time(d, name))
		return 0;
	/* Newer suites bring the links of the merged /usr themselves. */
	if (archive_entry_filetype(e) == AE_IFLNK && strncmp(name, "usr/", 4) == 0 && !strchr(name + 4, '/') && strchr(given + 1, '/') == NULL)
		return 0;
	archive_entry_set_pathname(e, name);
	if (link)
		archive_entry_set_hardlink(e, target);
	archive_entry_set_uname(e, NULL);	/* numbers count: names are this host's */
	archive_entry_set_gname(e, NULL);
	if (archive_write_header(d->tar, e) < ARCHIVE_WARN)
		return tar_failed(d, name);
	if (archive_entry_filetype(e) != AE_IFREG || link)
		return 0;
	r = keep_master(d, a, e, name);
	return r ? (r < 0 ? r : 0) : copy_data(d, a, name);
}

/* ---- one package ---- */

/* "libc6:amd64" where several architectures can be there together. */
static void info_name(const struct package *p, const char *what, char ret[256])
{
	(void)snprintf(ret, 256, "var/lib/dpkg/info/%.100s%s%.20s.%.80s", p->name, p->same ? ":" : "", p->same ? p->architecture : "", what);
}

static int copy_control(struct debian *d, const struct package *p, struct archive *a)
{
	struct archive_entry *e;
	char name[256], clean[PATH_MAX], *text;
	size_t len;
	int got = ARCHIVE_EOF, r = 0;

	while (r == 0 && (got = archive_read_next_header(a, &e)) == ARCHIVE_OK) {
		if (archive_entry_filetype(e) != AE_IFREG || !map_name(archive_entry_pathname(e), clean) || strchr(clean, '/'))
			continue;
		text = read_entry(a, e, &len);
		if (!text)
			return err_set(d->err, -EBADMSG, "package %.80s is damaged", p->name);
		if (strcmp(clean, "control") == 0) {
			/* dpkg wants the state next to the name. */
			const char *rest = strchr(text, '\n');

			(void)fprintf(d->status_file, "%.*s\nStatus: install ok unpacked\n%s", (int)(rest ? rest - text : (long)len), text,
				      rest ? rest + 1 : "");
			(void)fprintf(d->status_file, "%s\n", len && text[len - 1] == '\n' ? "" : "\n");
		} else {
			info_name(p, clean, name);
			r = put(d, name, AE_IFREG, archive_entry_perm(e) & 0777, text, len);
		}
		free(text);
	}
	return r == 0 && got != ARCHIVE_EOF ? archive_err(d->err, a, p->name) : r;
}

static int copy_files(struct debian *d, const struct package *p, struct archive *a)
{
	struct archive_entry *e;
	char name[256], *list = NULL;
	size_t len = 0;
	FILE *f = open_memstream(&list, &len);
	int got = ARCHIVE_EOF, r = f ? 0 : err_set(d->err, -ENOMEM, "out of memory");

	while (r == 0 && (got = archive_read_next_header(a, &e)) == ARCHIVE_OK)
		r = d->o->cancel && *d->o->cancel ? err_set(d->err, -EINTR, "interrupted") : copy_entry(d, a, e, f);
	if (r == 0 && got != ARCHIVE_EOF)
		r = archive_err(d->err, a, p->name);
	if (f)
		(void)fclose(f);
	info_name(p, "list", name);
	if (r == 0)
		r = put(d, name, AE_IFREG, 0644, list, len);
	free(list);
	return r;
}

static int add_package(struct debian *d, const struct package *p)
{
	struct archive *deb = archive_read_new(), *inner;
	struct archive_entry *e;
	char path[PATH_MAX];
	int r = deb ? get_cached(d, p->filename, p->size, p->sha256, path) : err_set(d->err, -ENOMEM, "out of memory");
	unsigned parts = 0;

	if (r < 0) {
		archive_read_free(deb);
		return r;
	}
	archive_read_support_format_ar(deb);
	if (archive_read_open_filename(deb, path, STEP) != ARCHIVE_OK)
		r = archive_err(d->err, deb, p->name);
	while (r == 0 && archive_read_next_header(deb, &e) == ARCHIVE_OK) {
		const char *name = archive_entry_pathname(e);
		bool control = name && strncmp(name, "control.tar", 11) == 0;

		if (!control && !(name && strncmp(name, "data.tar", 8) == 0))
			continue;
		inner = archive_open_inner(deb, p->name, d->err);
		r = !inner ? -EBADMSG : control ? copy_control(d, p, inner) : copy_files(d, p, inner);
		archive_read_free(inner);
		parts++;
	}
	archive_read_free(deb);
	return r == 0 && parts != 2 ? err_set(d->err, -EBADMSG, "%.80s is not a Debian package", p->name) : r;
}

/* ---- the whole ---- */

static int put_database(struct debian *d)
{
	static const char *const folders[] = { "etc", "etc/apt", "var", "var/lib", "var/lib/dpkg", "var/lib/dpkg/info",
					       "var/lib/dpkg/updates", "var/lib/dpkg/triggers" };
	char sources[512];
	int r = 0;

	for (size_t i = 0; r == 0 && i < sizeof(folders) / sizeof(folders[0]); i++)
		r = put(d, folders[i], AE_IFDIR, 0755, NULL, 0);
	(void)fclose(d->status_file);
	d->status_file = NULL;
	(void)snprintf(sources, sizeof(sources), "deb %s %s main\n", mirror_of(d), d->o->suite);
	if (r == 0)
		r = put(d, "var/lib/dpkg/status", AE_IFREG, 0644, d->status, d->status_len);
	if (r == 0)
		r = put_text(d, "var/lib/dpkg/available", 0644, "");
	if (r == 0)
		r = put_text(d, "var/lib/dpkg/info/format", 0644, "1\n");
	if (r == 0)
		r = put_text(d, "etc/apt/sources.list", 0644, sources);
	if (r == 0)
		r = put_text(d, "etc/hosts", 0644, "127.0.0.1\tlocalhost\n::1\tlocalhost\n");
	if (r == 0 && d->passwd)
		r = put_text(d, "etc/passwd", 0644, d->passwd);
	if (r == 0 && d->group)
		r = put_text(d, "etc/group", 0644, d->group);
	return r;
}

static int write_layer(struct debian *d)
{
	int r = 0;

	d->status_file = open_memstream(&d->status, &d->status_len);
	if (!d->status_file)
		return err_set(d->err, -ENOMEM, "out of memory");
	r = pack_archive(d->pack, &d->tar, d->err);
	if (r == 0)
		r = put_merged_usr(d);
	for (size_t i = 0; r == 0 && i < d->packages.nchosen; i++) {
		const struct package *p = &d->packages.at[d->packages.chosen[i]];

		say(d, "%zu/%zu %s %s", i + 1, d->packages.nchosen, p->name, p->version);
		r = add_package(d, p);
		if (r < 0)
			return err_prefix(d->err, r, "%.60s", p->name);
	}
	if (r == 0)
		r = put_database(d);
	if (r == 0 && archive_write_close(d->tar) != ARCHIVE_OK)
		r = tar_failed(d, "the layer");
	return r;
}

static int make_image(struct debian *d, struct store_lease *lease, const cJSON *config, struct descriptor *ret_desc)
{
	cJSON *full = config ? cJSON_Duplicate(config, true) : cJSON_CreateObject(), *list;
	struct pack_layer layer;
	struct pack pack;
	char comment[128];
	int r = full ? pack_begin(lease, &pack, d->err) : err_set(d->err, -ENOMEM, "out of memory");

	if (r == 0) {
		d->pack = &pack;
		r = write_layer(d);
		if (d->tar)
			archive_write_free(d->tar);
		if (r == 0)
			r = pack_finish(&pack, &layer, d->err);
		else
			pack_abort(&pack);
	}
	if (r == 0) {
		if (!cJSON_GetObjectItemCaseSensitive(full, "Cmd") && !cJSON_GetObjectItemCaseSensitive(full, "Entrypoint"))
			cJSON_AddItemToArray(cJSON_AddArrayToObject(full, "Cmd"), cJSON_CreateString("bash"));
		list = cJSON_GetObjectItemCaseSensitive(full, "Env");
		if (!list)
			list = cJSON_AddArrayToObject(full, "Env");
		cJSON_InsertItemInArray(list, 0, cJSON_CreateString("PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"));
		(void)snprintf(comment, sizeof(comment), "Packages of Debian %.40s", d->o->suite);
		r = pack_image(lease, &layer, 1, full, d->date ? d->date : pack_time(), comment, ret_desc, d->err);
	}
	cJSON_Delete(full);
	return r;
}

static bool suite_ok(const char *suite)
{
	size_t len = strlen(suite);

	return len > 0 && len < 64 && strspn(suite, "abcdefghijklmnopqrstuvwxyz0123456789-") == len;
}

int debian_import(struct store *store, struct store_lease *lease, const struct debian_options *options,
		  const char *name, const struct cJSON *config, struct store_ref *ret_ref, struct err *err)
{
	struct debian d = { .o = options, .err = err };
	char full[STORE_NAME_MAX], *index = NULL;
	struct descriptor desc;
	struct reference ref;
	int r = reference_parse(name, &ref, err);

	if (r == 0 && !suite_ok(options->suite))
		r = err_set(err, -EINVAL, "'%.60s' is not a suite of Debian: write one such as bookworm", options->suite);
	if (r == 0)
		r = file_cache_dir("debian", d.cache, err);
	if (r == 0)
		r = http_create(options->cancel, &d.http, err);
	if (r == 0)
		r = get_index(&d, &index);
	if (r == 0)
		r = packages_choose(&d.packages, options->include, err);
	if (r == 0)
		r = make_image(&d, lease, config, &desc);
	if (r == 0) {
		reference_name(&ref, full);
		r = local_set(store, full, &desc, err);
	}
	if (r == 0)
		r = store_ref_get(store, LOCAL_KIND, full, ret_ref, err);
	if (d.status_file)
		(void)fclose(d.status_file);
	free(d.status);
	free(d.passwd);
	free(d.group);
	tdestroy(d.seen, free);
	packages_free(&d.packages);
	free(index);
	http_destroy(d.http);
	return r;
}
