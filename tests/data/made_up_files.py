"""Small made-up files in the layout of each data set."""

import csv
import json
import os

import numpy as np
import PIL.Image

OFFICE_DOMAINS = ('amazon', 'caltech10', 'dslr', 'webcam')
LESIONS = ('akiec', 'bcc', 'bkl', 'df', 'mel', 'nv', 'vasc')


def image(path, color, size=(10, 6)):
  """Writes an image of one color, after making its folder."""
  os.makedirs(os.path.dirname(path), exist_ok=True)
  PIL.Image.new('RGB', size, color).save(path)


def domain_folder(
  path, domains=OFFICE_DOMAINS, classes=('bike', 'mug'), images=3
):
  """Writes `<domain>/<class>/<image>`; red is the domain, green the class."""
  for domain, domain_name in enumerate(domains):
    for label, class_name in enumerate(classes):
      for index in range(images):
        file = os.path.join(path, domain_name, class_name, f'{index}.png')
        image(file, (10 * domain, 10 * label, index))
  return str(path)


def image_folder(path, classes=('cat', 'dog'), images=3):
  """Writes `<class>/<image>`; red is the class."""
  for label, class_name in enumerate(classes):
    for index in range(images):
      image(
        os.path.join(path, class_name, f'{index}.png'), (200 * label, 0, index)
      )
  return str(path)


def tiny_imagenet(path, wnids=('n01', 'n02', 'n03'), images=4, validation=2):
  """Writes the original layout; red is the class, blue says validation."""
  rows = []
  for label, wnid in enumerate(wnids):
    for index in range(images):
      name = f'{wnid}_{index}.JPEG'
      file = os.path.join(path, 'train', wnid, 'images', name)
      image(file, (80 * label, 0, 0), (64, 64))
    boxes = os.path.join(path, 'train', wnid, f'{wnid}_boxes.txt')
    with open(boxes, 'w') as file:
      file.write(f'{wnid}_0.JPEG\t0\t0\t63\t63\n')
  for index in range(validation * len(wnids)):
    # Neighbours differ in class.
    label = index % len(wnids)
    name = f'val_{index}.JPEG'
    file = os.path.join(path, 'val', 'images', name)
    image(file, (80 * label, 0, 200), (64, 64))
    rows.append(f'{name}\t{wnids[label]}\t0\t0\t63\t63\n')
  with open(os.path.join(path, 'val', 'val_annotations.txt'), 'w') as file:
    file.writelines(rows)
  image(os.path.join(path, 'test', 'images', 'test_0.JPEG'), (0, 0, 0))
  return str(path)


def ham10000(path, images=14):
  """Writes a table and its images in two folders; red is the class."""
  rows = []
  for index in range(images):
    label = index % len(LESIONS)
    image_id = f'ISIC_{index:07d}'
    part = f'HAM10000_images_part_{1 + (index >= images // 2)}'
    file = os.path.join(path, part, f'{image_id}.jpg')
    image(file, (30 * label, 0, 0), (60, 45))
    rows.append([f'HAM_{index // 2}', image_id, LESIONS[label], 'histo'])
  with open(os.path.join(path, 'HAM10000_metadata.csv'), 'w') as file:
    writer = csv.writer(file)
    writer.writerow(['lesion_id', 'image_id', 'dx', 'dx_type'])
    writer.writerows(rows)
  return str(path)


def npz(path, images=60, classes=3, shape=(6, 6, 3), num_train=None):
  """Writes arrays `x`, `y` (and `num_train`)."""
  rng = np.random.default_rng(0)
  arrays = dict(
    x=rng.integers(0, 256, (images, *shape)).astype(np.uint8),
    y=np.arange(images) % classes,
  )
  if num_train is not None:
    arrays['num_train'] = num_train
  np.savez(path, **arrays)
  return str(path)


def _numbers(path, table, fmt='%.6e'):
  os.makedirs(os.path.dirname(path), exist_ok=True)
  np.savetxt(path, table, fmt=fmt)


def har(path, windows=6, subjects=(1, 3, 30)):
  """Writes UCI HAR's layout; channel c of window w is 10 w + c everywhere."""
  channels = [
    f'{signal}_{axis}'
    for signal in ('body_acc', 'body_gyro', 'total_acc')
    for axis in 'xyz'
  ]
  for split, who in (('train', subjects[:-1]), ('test', subjects[-1:])):
    folder = os.path.join(path, split)
    for number, channel in enumerate(channels):
      values = 10.0 * np.arange(windows)[:, None] + number
      _numbers(
        os.path.join(folder, 'Inertial Signals', f'{channel}_{split}.txt'),
        np.repeat(values, 128, axis=1),
      )
    labels = 1 + np.arange(windows) % 6
    _numbers(os.path.join(folder, f'y_{split}.txt'), labels, '%d')
    _numbers(
      os.path.join(folder, f'subject_{split}.txt'),
      np.resize(who, windows),
      '%d',
    )
  return str(path)


def pamap2(path, subjects=(101, 102)):
  """Writes PAMAP2's layout.

  A subject lies for 10 steps, is between activities for 3, jumps a rope for 9,
  and lies for 3. Column c of step t is 100 c + t; the first sensor misses its
  steps 4 and 5.
  """
  activities = np.repeat([1, 0, 24, 1], [10, 3, 9, 3])
  for subject in subjects:
    table = 100.0 * np.arange(54) + np.arange(25)[:, None]
    table[:, 1] = activities
    table[4:6, 3:20] = np.nan
    table[1:, 2] = np.nan  # The heart rate comes less often.
    _numbers(
      os.path.join(path, 'Protocol', f'subject{subject}.dat'), table, '%.2f'
    )
  return str(path)


def news(path, classes=4, train=8, test=4):
  """Writes AG News's or Sogou News's layout."""
  os.makedirs(path, exist_ok=True)
  for name, count in (('train', train), ('test', test)):
    with open(os.path.join(path, f'{name}.csv'), 'w', newline='') as file:
      writer = csv.writer(file, quoting=csv.QUOTE_ALL)
      for index in range(count):
        label = 1 + index % classes
        writer.writerow(
          [label, f'Title {label}', f'"Text" of\\nclass{label}, {name}']
        )
  return str(path)


def shakespeare(path, roles=('HAMLET', 'OPHELIA')):
  """Writes LEAF's layout; the last input and letter are not LEAF's."""
  os.makedirs(os.path.join(path, 'all_data'), exist_ok=True)
  said = 'To be, or not to be?\n' * 5
  user_data = {
    role: {
      'x': [said[i : i + 80] for i in range(6)],
      'y': [said[i + 80] for i in range(6)],
    }
    for role in roles
  }
  user_data[roles[0]]['x'][-1] = 'é' * 80
  user_data[roles[-1]]['y'][-1] = 'é'
  content = {
    'users': [*roles],
    'num_samples': [6] * len(roles),
    'user_data': user_data,
  }
  with open(os.path.join(path, 'all_data', 'all_data.json'), 'w') as file:
    json.dump(content, file)
  return str(path)


def camelyon17(path, patches=3):
  """Writes WILDS's layout; red is the hospital, green the class."""
  rows = []
  for center in range(5):
    patient, node = f'{20 * center + 4:03d}', center % 4
    of_node = f'patient_{patient}_node_{node}'
    for index in range(patches):
      tumor = index % 2
      x, y = 32 * index, 32 * center
      file = f'patch_{of_node}_x_{x}_y_{y}.png'
      image(
        os.path.join(path, 'patches', of_node, file),
        (40 * center, 100 * tumor, 0),
        (96, 96),
      )
      rows.append([len(rows), patient, node, x, y, tumor, 0, center, 0])
  with open(os.path.join(path, 'metadata.csv'), 'w', newline='') as file:
    writer = csv.writer(file)
    columns = 'patient node x_coord y_coord tumor slide center split'
    writer.writerow(['', *columns.split()])
    writer.writerows(rows)
  return str(path)
