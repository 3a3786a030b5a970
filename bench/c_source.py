"""Writes C that looks like what people compile: c_source.text(LINES), the same at every call.

A file of many functions of a dozen kinds (loops over arrays and lists, switches,
string handling, floating point, hashing, state machines, recursion), with
structures of their own, tables, and calls among them.
"""
import random

HEAD = """\
#include <ctype.h>
#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define COUNT(a) (sizeof(a) / sizeof((a)[0]))
#define MAX(a, b) ((a) > (b) ? (a) : (b))

struct buffer { char *data; size_t len, cap; };
struct node { struct node *next, *left, *right; int key; double weight; char name[24]; };

static int buffer_add(struct buffer *b, const char *text, size_t len)
{
	if (b->len + len + 1 > b->cap) {
		size_t cap = MAX(2 * b->cap, b->len + len + 64);
		char *data = realloc(b->data, cap);

		if (!data)
			return -1;
		b->data = data;
		b->cap = cap;
	}
	memcpy(b->data + b->len, text, len);
	b->len += len;
	b->data[b->len] = '\\0';
	return 0;
}
"""

TEMPLATES = ["""\
struct record_{n} {{
	uint{bits}_t id, flags;
	double value[{small}];
	char label[{wide}];
	const struct node *owner;
}};

/* Sums what is set in the records' flags, the newest first. */
double total_{n}(const struct record_{n} *r, size_t count)
{{
	double sum = {real};

	for (size_t i = count; i-- > 0;) {{
		if (r[i].flags & {mask:#x})
			continue;
		for (size_t k = 0; k < COUNT(r[i].value); k++)
			sum += r[i].value[k] * (double)(k + {small}) / (1.0 + fabs(r[i].value[(k + 1) % COUNT(r[i].value)]));
		if (r[i].owner && r[i].owner->key > {k})
			sum -= r[i].owner->weight;
	}}
	return sum;
}}
""", """\
static int parse_{n}(const char *s, struct buffer *out)
{{
	enum {{ TEXT, NAME, NUMBER, QUOTED }} state = TEXT;
	int depth = 0, value = {k};

	for (; *s; s++) {{
		switch (state) {{
		case TEXT:
			if (isalpha((unsigned char)*s))
				state = NAME;
			else if (isdigit((unsigned char)*s))
				state = NUMBER, value = *s - '0';
			else if (*s == '"')
				state = QUOTED;
			else if (*s == '(' || *s == '{{')
				depth++;
			else if ((*s == ')' || *s == '}}') && --depth < 0)
				return -{small};
			break;
		case NAME:
			if (!isalnum((unsigned char)*s) && *s != '_')
				state = TEXT;
			else if (buffer_add(out, s, 1) < 0)
				return -1;
			break;
		case NUMBER:
			if (isdigit((unsigned char)*s))
				value = (value * 10 + (*s - '0')) % {prime};
			else
				state = TEXT;
			break;
		case QUOTED:
			if (*s == '\\\\' && s[1])
				s++;
			else if (*s == '"')
				state = TEXT;
			break;
		}}
	}}
	return depth == 0 ? value : {call};
}}
""", """\
static int opcode_{n}(unsigned op, int a, int b)
{{
	switch (op % {ops}) {{
{cases}
	default: return a - b;
	}}
}}
""", """\
static struct node *insert_{n}(struct node *root, struct node *add)
{{
	struct node **at = &root;

	while (*at) {{
		int order = strcmp(add->name, (*at)->name);

		if (order == 0)
			order = add->key - (*at)->key + {small};
		at = order < 0 ? &(*at)->left : &(*at)->right;
	}}
	add->left = add->right = NULL;
	*at = add;
	return root;
}}

static double walk_{n}(const struct node *t, int depth)
{{
	if (!t || depth > {wide})
		return {real};
	return walk_{n}(t->left, depth + 1) * 0.5 + t->weight + sqrt(walk_{n}(t->right, depth + 1) + {k}.0);
}}
""", """\
static uint32_t hash_{n}(const void *data, size_t len)
{{
	const uint8_t *p = data;
	uint32_t h = {seed:#x}u ^ (uint32_t)len;

	while (len >= 4) {{
		uint32_t k;

		memcpy(&k, p, 4);
		k *= 0xcc9e2d51u;
		k = (k << {rot}) | (k >> (32 - {rot}));
		h = (h ^ k) * 5 + {prime}u;
		p += 4;
		len -= 4;
	}}
	while (len--)
		h = (h ^ *p++) * 16777619u;
	return h ^ (h >> {rot});
}}
""", """\
static void smooth_{n}(float *out, const float *in, int w, int h)
{{
	static const float kernel[3][3] = {{ {{ .1f, .2f, .1f }}, {{ .2f, {real}f, .2f }}, {{ .1f, .2f, .1f }} }};

	for (int y = 1; y < h - 1; y++)
		for (int x = 1; x < w - 1; x++) {{
			float sum = 0;

			for (int j = -1; j <= 1; j++)
				for (int i = -1; i <= 1; i++)
					sum += kernel[j + 1][i + 1] * in[(y + j) * w + x + i];
			out[y * w + x] = sum > {k}.f ? {k}.f : sum;
		}}
}}
""", """\
static const struct {{ const char *name; int low, high; double scale; }} table_{n}[] = {{
{rows}
}};

int lookup_{n}(const char *name, int value, char *text, size_t size)
{{
	for (size_t i = 0; i < COUNT(table_{n}); i++) {{
		if (strncmp(table_{n}[i].name, name, {small}) != 0)
			continue;
		if (value < table_{n}[i].low || value > table_{n}[i].high)
			return snprintf(text, size, "%s: %d is not in %d..%d", name, value, table_{n}[i].low, table_{n}[i].high);
		return snprintf(text, size, "%s = %.{small}f", name, value * table_{n}[i].scale);
	}}
	return {call};
}}
""", """\
static int sort_{n}(int *v, int n)
{{
	int moves = 0;

	for (int gap = n / 2; gap > 0; gap /= 2)
		for (int i = gap; i < n; i++) {{
			int x = v[i], j = i;

			for (; j >= gap && v[j - gap] > x; j -= gap, moves++)
				v[j] = v[j - gap];
			v[j] = x;
		}}
	return n > {k} ? moves : {call};
}}
"""]


def function(rng, n, callable_names):
    op = lambda: rng.choice("+-*^&|")
    cases = "\n".join(f"\tcase {i}: return (a {op()} {rng.randrange(1, 99)}) {op()} (b >> {rng.randrange(1, 7)});"
                      for i in range(rng.randrange(6, 20)))
    words = "alpha bravo carbon delta echo field gamma house index joint".split()
    rows = "\n".join(f'\t{{ "{rng.choice(words)}{i}", {-rng.randrange(500)}, {rng.randrange(500)}, {rng.random():.4f} }},'
                     for i in range(rng.randrange(4, 16)))
    call = f"opcode_{rng.choice(callable_names)}({rng.randrange(9)}, {rng.randrange(99)}, 7)" if callable_names else "-1"
    kind = n % len(TEMPLATES)
    text = TEMPLATES[kind].format(
        n=n, bits=rng.choice((8, 16, 32, 64)), small=rng.randrange(2, 7), wide=rng.choice((16, 32, 48)),
        real=f"{rng.random() * 9:.3f}", mask=1 << rng.randrange(7), k=rng.randrange(1, 200), seed=rng.getrandbits(32),
        prime=rng.choice((9973, 65521, 1000003)), rot=rng.randrange(5, 20), ops=cases.count("\n") + 2, cases=cases,
        rows=rows, call=call)
    if kind == 2:
        callable_names.append(n)
    return text


def user(n):
    """A function that calls the static ones of a group, so that none is thrown away."""
    return f"""\
double run_{n}(struct node *nodes, int count, const char *text, float *a, float *b, int *v)
{{
	struct node *root = NULL;
	struct buffer out = {{ 0 }};
	double result = parse_{n - 6}(text, &out);

	for (int i = 0; i < count; i++)
		root = insert_{n - 4}(root, &nodes[i]);
	smooth_{n - 2}(b, a, count, count);
	result += walk_{n - 4}(root, 0) + hash_{n - 3}(text, strlen(text)) + sort_{n}(v, count);
	result += opcode_{n - 5}((unsigned)count, v[0], v[1]);
	free(out.data);
	return result;
}}
"""


def text(lines):
    """At least @lines lines of C, up to the end of the group of functions that reaches them."""
    rng = random.Random(5000)
    parts, callable_names, n = [HEAD], [], 0
    while sum(p.count("\n") + 1 for p in parts) < lines or n % len(TEMPLATES):
        parts.append(function(rng, n, callable_names))
        n += 1
        if n % len(TEMPLATES) == 0:
            parts.append(user(n - 1))
    return "\n".join(parts)
